"""Networks in the form of tf2onnx: taken as they are, bit for bit to the bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from .agreement import BOUND, compared
from .support import quantise
from .tf2onnx_form import FORMS, Keras

CASES = [(form, opset) for form, entry in FORMS.items() for opset in entry.opsets]


def written(form: str, opset: int, path: Path) -> onnx.ModelProto:
    model = FORMS[form].write(Keras(FORMS[form].shape, opset))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return model


@pytest.mark.parametrize(("form", "opset"), CASES)
def test_the_import_computes_the_same(form: str, opset: int, tmp_path: Path) -> None:
    entry = FORMS[form]
    written(form, opset, tmp_path / "keras.onnx")
    dropped = (lambda y: y.softmax(1)) if entry.softmax else None
    assert compared(tmp_path / "keras.onnx", entry.shape, dropped)[1] <= BOUND


@pytest.mark.parametrize("form", FORMS)
def test_all_executions_of_the_bundle_agree(form: str, tmp_path: Path) -> None:
    entry = FORMS[form]
    model = written(form, entry.opsets[1], tmp_path / "keras.onnx")
    x = np.random.default_rng(4).normal(0, 1, (16, *entry.shape)).astype(np.float32)
    task = "reconstruction" if form == "vectors" else "classification"
    outcome = quantise(model, {"x_train": x}, tmp_path, task=task)
    assert outcome.finished()[-1] == "verify"
    assert len(outcome.report["verification"]["executions"]) == 6
