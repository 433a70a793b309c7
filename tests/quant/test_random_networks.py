"""Random float networks through the whole pipeline: exact, close to the float network, or refused by name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import event, given, settings

from dianaq.errors import DianaqError, InvalidModel, InvalidSpec, QuantisationError
from dianaq_quant.editors import canonicalise
from dianaq_quant.editors.fake_quantise.equalise import Equalise
from dianaq_quant.graph import run_editors

from .networks import Case, cases
from .support import edited, outputs, quantise, run_onnx

FAST, MANY = 30, 300


def logits(case: Case) -> np.ndarray:
    """The float network's output in onnxruntime, before a final softmax."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    if model.graph.node[-1].op_type in ("Softmax", "LogSoftmax"):
        model.graph.output[0].name = model.graph.node.pop().input[0]
    return run_onnx(model, case.x)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the order in which float32 sums were made."""
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * max(1e-30, float(np.abs(expected).max())))


def check_import(case: Case) -> None:
    expected = logits(case)
    network, _ = edited(case.model)
    assert_close(outputs(network, case.x), expected)
    run_editors(network, canonicalise.EDITORS)
    assert_close(outputs(network, case.x), expected)
    run_editors(network, [Equalise()])
    assert_close(outputs(network, case.x), expected)


def check_pipeline(case: Case) -> None:
    refusal: DianaqError | None = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = quantise(case.model, {"x_train": case.x}, Path(folder))
        except (QuantisationError, InvalidModel) as error:
            refusal = error
        else:
            assert len(outcome.report["verification"]["executions"]) == 4
            if case.tame:
                check_error(case, onnx.load(str(outcome.folder / "htvm/model.onnx")))
    if refusal is not None:
        assert not case.tame, f"a network of usual magnitudes was refused: {refusal.detail}"
        assert refusal.param in [node.name for node in case.model.graph.node]
        assert str(refusal.param) in refusal.detail


def check_mixed(case: Case) -> None:
    """On both cores all executions agree, or what cannot be is refused by the name of a layer."""
    refusal: DianaqError | None = None
    names = [node.name for node in case.model.graph.node]
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = quantise(case.model, {"x_train": case.x}, Path(folder), **case.spec)
        except (QuantisationError, InvalidModel, InvalidSpec) as error:
            refusal = error
        else:
            assert len(outcome.report["verification"]["executions"]) == 4
            integer = onnx.load(str(outcome.folder / "htvm/model.onnx"))
            assert np.isfinite(run_onnx(integer, case.x)).all()
    if isinstance(refusal, InvalidSpec):
        event(f"refused: {refusal.detail.split(', but ')[-1].split(',')[0]:.60}")
        *field, asked = str(refusal.param).split(".", 2)
        if field == ["mapping", "layers"]:
            assert asked in case.spec["mapping"]["layers"]
        else:  # a rule for an operator that the canonical form does without
            assert (field, asked.endswith(".layers")) == (["recipe", "quantisers"], True)
        assert any(name in refusal.detail for name in names)
    elif refusal is not None:
        assert not case.tame, f"a network of usual magnitudes was refused: {refusal.detail}"
        assert refusal.param in names
        assert str(refusal.param) in refusal.detail


def check_error(case: Case, integer: onnx.ModelProto) -> None:
    """Bit-exact executions of a wrong network would agree as well: it must also compute what the float one does."""
    expected = logits(case)
    error = run_onnx(integer, case.x)[:, : expected.shape[1]] - expected  # outputs may be padded
    assert np.sqrt(np.mean(error**2)) <= 0.35 * np.sqrt(np.mean(expected**2)) + 1e-6


@settings(max_examples=FAST)
@given(cases())
def test_import_keeps_the_function(case: Case) -> None:
    check_import(case)


@settings(max_examples=FAST)
@given(cases())
def test_any_network_is_quantised_exactly_or_refused_by_name(case: Case) -> None:
    check_pipeline(case)


@settings(max_examples=FAST)
@given(cases(tame=True))
def test_integer_network_is_close_to_the_float_one(case: Case) -> None:
    check_pipeline(case)


@settings(max_examples=FAST)
@given(cases(mixed=True))
def test_any_network_is_mapped_to_both_cores_exactly_or_refused_by_name(case: Case) -> None:
    check_mixed(case)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(cases(mixed=True))
def test_many_networks_are_mapped_to_both_cores_exactly_or_refused_by_name(case: Case) -> None:
    check_mixed(case)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(cases())
def test_import_keeps_the_function_of_many(case: Case) -> None:
    check_import(case)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(cases())
def test_many_networks_are_quantised_exactly_or_refused_by_name(case: Case) -> None:
    check_pipeline(case)
