"""What the compilers' rules say of the five trained networks: how many layers run on their core, and no hazard left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from .support import quantise

OFFLOADED = {
    "resnet8": (13, ()),
    "resnet20": (31, ()),
    "mobilenetv1": (28, ()),
    "dae": (10, ()),
    "dscnn": (9, ("its kernel is 10x4",)),
}
"""Layers on the accelerators for HTVM, and words of why another one is not. Pools run on the CPU in any case."""


@pytest.mark.parametrize("name", OFFLOADED)
@pytest.mark.parametrize("mapping", ["digital", "analog"])
def test_layers_run_on_the_core_that_they_are_meant_for(
    shared_data: Path, tmp_path: Path, name: str, mapping: str
) -> None:
    if mapping == "analog" and not name.startswith("resnet"):
        pytest.skip("mixed networks: the residual ones")
    model = onnx.load(str(shared_data / "models" / f"diana_{name}.onnx"))
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(0).normal(0, 1, (16, *shape)).astype(np.float32)
    task = "reconstruction" if name == "dae" else "classification"
    report = quantise(model, {"x_train": x}, tmp_path, mapping={"default": mapping}, task=task).report
    wanted, words = OFFLOADED[name]
    placed = [
        e["placement"]["htvm"] for e in report["layers"] if "placement" in e and e["operation"] != "GlobalAvgPool2d"
    ]
    assert sum(p["offloaded"] for p in placed) == wanted
    refused = ["; ".join(p["reasons"]) for p in placed if not p["offloaded"]]
    assert len(refused) == len(words)
    assert all(word in reasons for word, reasons in zip(words, refused, strict=True))
    assert not [f for f in report["checks"]["htvm"] if f["severity"] in ("rejected", "wrong")]
    assert not [f for f in report["checks"]["dory"] if f["severity"] == "rejected"]
    assert len(report["verification"]["executions"]) == (6 if mapping == "digital" else 5)
