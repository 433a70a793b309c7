"""Pixels and the input's integers: every pixel has its bin, however its normalisation is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dianaq.schemas.spec import JobSpec
from dianaq_quant.modules.exact import ExactInput
from dianaq_quant.targets.diana import INT8
from dianaq_quant.training.load import load_data

PIXELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 1.0), (0.5, 0.5), (0.5, 0.25), (0.2, 0.3), (0.4, 0.225), (128 / 255, 0.5), (0.1307, 0.3081), (0.8, 1.0)],
)
def test_bins_do_not_depend_on_how_a_pixel_was_normalised(tmp_path: Path, mean: float, std: float) -> None:
    np.savez(tmp_path / "data.npz", x_train=PIXELS.reshape(256, 1, 1, 1), x_val=PIXELS.reshape(256, 1, 1, 1))
    preprocessing = {"mean": [mean], "std": [std]}
    spec = JobSpec.model_validate({"model": "m", "dataset": "d", "preprocessing": preprocessing})
    data = load_data(tmp_path / "data.npz", spec, (1, 1, 1))
    ways = [
        data.normalise(torch.from_numpy(PIXELS.reshape(256, 1, 1, 1))).flatten(),
        torch.from_numpy((PIXELS.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)),
        torch.from_numpy(((PIXELS / 255 - mean) / std).astype(np.float32)),
    ]
    integers = [ExactInput(data.input_steps[INT8], INT8)(x).long() for x in ways]
    zero = mean * 255
    away = torch.from_numpy(np.abs(PIXELS - zero) > 1e-6)  # the sign of an exact zero is noise
    for found in integers[1:]:
        assert torch.equal(found[away], integers[0][away])
    # Each integer stands for the middle of its bin, which is at most half a bin away.
    steps = round(data.input_steps[INT8] * 255 * std)
    middles = (integers[0] + 0.5) * steps
    assert (middles - (torch.from_numpy(PIXELS).double() - zero)).abs().max() <= steps / 2 + 0.01
