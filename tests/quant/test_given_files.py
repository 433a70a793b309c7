"""Files from elsewhere, where they are there: each is taken and computes the same, or is refused with a way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import Tensor

from dianaq.errors import InvalidModel
from dianaq.inspection import inspect_model

from .agreement import BOUND, compared, sample_shape
from .support import quantise

REFUSED = {
    r"bn_train13|.*\.ts\d+train": r"training mode; export the model after model\.eval\(\)",
    r"hswish\..*": "substitute",
}
"""Names of files, and what the refusal of each tells to do. Everything else is taken."""


def dropped(model: onnx.ModelProto) -> Callable[[Tensor], Tensor] | None:
    """What a file ends in and the import leaves out."""
    return (lambda y: y.softmax(1)) if model.graph.node[-1].op_type == "Softmax" else None


def found(path: Path) -> str:
    """What became of a file: nothing to say if it is taken and computes the same, or is refused as it must be."""
    wanted = next((text for names, text in REFUSED.items() if re.fullmatch(names, path.stem)), None)
    model = onnx.load(path, load_external_data=False)
    try:
        difference = compared(path, sample_shape(model), dropped(model))[1]
    except InvalidModel as error:
        told = wanted is not None and re.search(wanted, str(error)) is not None
        return "" if told else f"refused: {error}"
    if wanted is not None:
        return "taken"
    return "" if difference <= BOUND else f"differs by {difference:.1e} of the largest output"


@pytest.mark.parametrize("folder", ["cases", "cases/exporters", "models/mlperf_tiny"])
def test_every_file_is_taken_or_refused_with_a_way_out(shared_data: Path, folder: str) -> None:
    paths = sorted((shared_data / folder).glob("*.onnx"))
    assert paths
    faults = {path.name: fault for path in paths if (fault := found(path))}
    assert not faults


@pytest.mark.parametrize("name", ["lastpool", "pad", "res"])
def test_weights_beside_a_file_are_not_looked_for_where_it_is_uploaded(shared_data: Path, name: str) -> None:
    with pytest.raises(InvalidModel, match="external_data=False"):
        inspect_model(shared_data / "cases" / "exporters" / f"{name}.dyndef.onnx")


@pytest.mark.parametrize("name", ["ad", "ic", "kws", "vww"])
def test_all_executions_of_the_bundle_of_a_reference_network_agree(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    model = onnx.load(shared_data / "models" / "mlperf_tiny" / f"tiny_{name}_tf2onnx_nhwc_op13.onnx")
    x = np.random.default_rng(0).normal(0, 1, (16, *sample_shape(model))).astype(np.float32)
    task = "reconstruction" if name == "ad" else "classification"
    outcome = quantise(model, {"x_train": x}, tmp_path, task=task)
    assert outcome.finished()[-1] == "verify"
    assert len(outcome.report["verification"]["executions"]) == 6
