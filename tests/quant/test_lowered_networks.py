"""A network of everything that is lowered, through a whole job: all executions of its bundle agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor as T
from torch import nn
from torch.nn import functional as F

from dianaq_quant import quantise as quantise_module
from dianaq_quant.export.check import check_file

from .builder import ModelBuilder, Tensor
from .support import quantise
from .test_lower_windows import pad, strided

EXECUTIONS = 4


def data(count: int = 48) -> dict[str, np.ndarray]:
    return {"x_train": np.random.default_rng(0).uniform(0, 1, (count, 3, 12, 12)).astype(np.float32)}


def scaled(b: ModelBuilder, x: Tensor) -> Tensor:
    """A BatchNorm as converters write it."""
    gamma, beta = b.random.uniform(0.5, 1.5, (x.shape[0], 1, 1)), b.random.normal(0, 0.3, (x.shape[0], 1, 1))
    return b.node("Add", [b.node("Mul", [x, b.constant(gamma)], x.shape), b.constant(beta)], x.shape)


def test_a_file_with_everything_that_is_lowered(tmp_path: Path) -> None:
    b = ModelBuilder((3, 12, 12), seed=2)
    mean, std = (b.constant(np.reshape(v, (1, 3, 1, 1))) for v in ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
    x = b.node("Div", [b.node("Sub", [b.input, mean], b.input.shape), std], b.input.shape)
    x = b.relu(scaled(b, b.conv(pad(b, x, 0, 0, 1, 1), 8, stride=(1, 1), name="stem", bias=False)))
    y = b.relu(scaled(b, b.conv(pad(b, x, 1, 1, 1, 1), 16, stride=(2, 2))))
    y = scaled(b, b.conv(y, 16, pads=(1, 1, 1, 1)))
    x = b.relu(b.add(y, pad(b, strided(b, x), 0, 0, 0, 0, channels=(4, 4))))
    x = b.pool("MaxPool", pad(b, x, 1, 1, 1, 1), (3, 3), stride=(2, 2))
    x = b.node("Clip", [b.conv(x, 16), b.constant(0.0), b.constant(4.0)], (16, 1, 1))
    x = b.node("GlobalMaxPool", [x], (16, 1, 1))
    model = b.build(b.gemm(b.flatten(x), 5))
    report = quantise(model, data(), tmp_path).report
    assert len(report["verification"]["executions"]) >= EXECUTIONS
    inserted = [e["editor"] for e in report["edits"] if e["applied"] and e["editor"].endswith("ToLayer")]
    assert inserted == ["SliceToLayer", "AffineToLayer"]


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]))
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.stem, self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, 2, 1), nn.Linear(16, 5)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: T) -> Any:
        x = F.relu(self.stem(F.pad((x - self.mean[:, None, None]) / 0.25, (1, 1, 1, 1))))
        x = self.gain * self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(self.pool(x.clamp(0, 3)).amax((2, 3)))


def test_a_module_with_everything_that_is_lowered(tmp_path: Path) -> None:
    result = quantise_module(Everything(), data(), tmp_path / "out")
    assert len(result.report["verification"]["executions"]) >= EXECUTIONS
    x = torch.from_numpy(data(8)["x_train"])
    assert torch.equal(result.exact(x), result.integer(x))
    assert not check_file(result.folder / "htvm" / "model.onnx").failures
