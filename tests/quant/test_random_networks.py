"""Random float networks through the whole pipeline: exact, close to the float network, or refused by name."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dianaq.errors import DianaqError, InvalidModel, InvalidSpec, QuantisationError
from dianaq.executor import compare_models, open_source
from dianaq.executor.compare import layer_outputs
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
            assert len(outcome.report["verification"]["executions"]) == 6
            check_integer_executor(case, outcome.folder)
            if case.tame:
                check_error(case, run_onnx(onnx.load(str(outcome.folder / "htvm/model.onnx")), case.x))
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
            assert (
                "htvm/model.onnx in numpy, integers only (32 of the samples)"
                in (outcome.report["verification"]["executions"])
            )
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


def check_interface(case: Case, random: np.random.Generator) -> None:
    """Fed with pixels and giving integers all executions agree; where the border is the float network's, so is the
    result, but for what quantisation costs."""
    channels = case.x.shape[1]
    exact = bool(random.integers(2))
    mean = np.full(channels, 128 / 255) if exact else random.uniform(0, 1, channels)
    std = random.uniform(0.1, 0.2, channels)
    pixels = np.clip(np.round(case.x / np.abs(case.x).max() * 127 + 128), 0, 255).astype(np.uint8)
    spec = {"preprocessing": {"mean": mean.tolist(), "std": std.tolist()}}
    broadcast = (-1, *[1] * (case.x.ndim - 2))
    x = ((pixels / 255 - mean.reshape(broadcast)) / std.reshape(broadcast)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        interface = {"input": "pixels", "output": "int8"}
        try:
            outcome = quantise(case.model, {"x_train": pixels}, Path(folder), **spec, interface=interface)
        except (QuantisationError, InvalidModel) as error:
            assert not case.tame, f"a network of usual magnitudes was refused: {error.detail}"
            return
        assert len(outcome.report["verification"]["executions"]) == 6
        integers = run_onnx(onnx.load(str(outcome.folder / "htvm/model.onnx")), pixels.astype(np.float32) - 128)
        if case.tame and exact:
            check_error(replace(case, x=x), integers * outcome.report["interface"]["output"]["scale"])


def check_integer_executor(case: Case, bundle: Path) -> None:
    """Both files compute the same in integers, layer by layer, and what onnxruntime computes of the one."""
    htvm, dory = open_source(bundle), open_source(bundle / "dory" / "model.onnx")
    found = compare_models(htvm, dory, case.x)
    assert (found.difference, found.samples) == (None, len(case.x))
    assert found.equal_tensors == len(layer_outputs(htvm.model)) == len(layer_outputs(dory.model))
    assert np.array_equal(htvm.model.run(case.x).output, run_onnx(onnx.load(str(bundle / "htvm/model.onnx")), case.x))


def check_error(case: Case, found: np.ndarray) -> None:
    """Bit-exact executions of a wrong network would agree as well: it must also compute what the float one does."""
    expected = logits(case)
    error = found[:, : expected.shape[1]] - expected  # outputs may be padded
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


@settings(max_examples=FAST)
@given(cases(), st.integers(0, 2**32 - 1))
def test_any_network_is_fed_pixels_and_gives_integers(case: Case, seed: int) -> None:
    check_interface(case, np.random.default_rng(seed))


@pytest.mark.slow
@settings(max_examples=MANY)
@given(cases(), st.integers(0, 2**32 - 1))
def test_many_networks_are_fed_pixels_and_give_integers(case: Case, seed: int) -> None:
    check_interface(case, np.random.default_rng(seed))


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
