"""Activations that no core computes: found in a file, and refused unless the job substitutes them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dianaq.errors import InvalidSpec, UnsupportedOperator
from dianaq.inspection import check_fit, inspect_model, own_operators
from dianaq.inspection.elementwise import POINTS, Operation, identify, recognised
from dianaq.inspection.operators import ACTIVATION_OPERATORS
from dianaq.schemas.resources import DatasetInfo, FinalActivation, ModelInfo, SplitInfo
from dianaq.schemas.spec import JobSpec, parse_spec
from dianaq.schemas.substitution import ACTIVATIONS, PROPOSED

from .onnx_samples import node, save, tensor, with_head


def constant(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


NUMBERS = {"three": 3.0, "zero": 0.0, "six": 6.0, "half": 0.5, "one": 1.0, "root2": 2**0.5, "cube": 3.0}
NUMBERS |= {"c": 0.044715, "root": (2 / np.pi) ** 0.5, "sixth": 1 / 6, "slope": 0.1}

WRITTEN: dict[str, tuple[str, list[onnx.NodeProto]]] = {
    "x Sigmoid(x)": ("silu", [node("Sigmoid", ["x"], "s"), node("Mul", ["s", "x"], "act")]),
    "x HardSigmoid(x)": (
        "hardswish",
        [node("HardSigmoid", ["x"], "h", alpha=1 / 6), node("Mul", ["x", "h"], "act")],
    ),
    "x Clip(x + 3) / 6": (
        "hardswish",
        [
            node("Add", ["x", "three"], "a"),
            node("Clip", ["a", "zero", "six"], "b"),
            node("Mul", ["x", "b"], "m"),
            node("Div", ["m", "six"], "act"),
        ],
    ),
    "x (Clip(x + 3) * 1/6)": (
        "hardswish",
        [
            node("Add", ["three", "x"], "a"),
            node("Clip", ["a", "zero", "six"], "b"),
            node("Mul", ["b", "sixth"], "m"),
            node("Mul", ["m", "x"], "act"),
        ],
    ),
    "erf": (
        "gelu",
        [
            node("Div", ["x", "root2"], "a"),
            node("Erf", ["a"], "b"),
            node("Add", ["b", "one"], "e"),
            node("Mul", ["x", "e"], "m"),
            node("Mul", ["m", "half"], "act"),
        ],
    ),
    "tanh": (
        "gelu",
        [
            node("Pow", ["x", "cube"], "p"),
            node("Mul", ["p", "c"], "q"),
            node("Add", ["x", "q"], "r"),
            node("Mul", ["r", "root"], "s"),
            node("Tanh", ["s"], "t"),
            node("Add", ["t", "one"], "u"),
            node("Mul", ["x", "half"], "h"),
            node("Mul", ["h", "u"], "act"),
        ],
    ),
    "Max": ("leaky_relu", [node("Mul", ["x", "slope"], "m"), node("Max", ["x", "m"], "act")]),
    "relu6(x + 3) / 6": (
        "hardsigmoid",
        [
            node("Add", ["x", "three"], "a"),
            node("Clip", ["a", "zero", "six"], "b"),
            node("Div", ["b", "six"], "act"),
        ],
    ),
    "mish": (
        "mish",
        [node("Softplus", ["x"], "s"), node("Tanh", ["s"], "t"), node("Mul", ["x", "t"], "act")],
    ),
}


def file(folder: Path, nodes: list[onnx.NodeProto], *more: onnx.TensorProto, opset: int = 17) -> Path:
    """Nodes that make `act` of `x`, then a flatten."""
    used = {name for n in nodes for name in n.input}
    constants = [constant(name, value) for name, value in NUMBERS.items() if name in used]
    model = with_head(*nodes, node("Flatten", ["act"], "y"), weights=[*constants, *more], opset=opset)
    return save(model, folder)


@pytest.mark.parametrize("form", WRITTEN)
def test_a_function_that_is_written_out_is_known_by_what_it_computes(tmp_path: Path, form: str) -> None:
    kind, nodes = WRITTEN[form]
    info = inspect_model(file(tmp_path, nodes))
    assert info.substitutable == {nodes[-1].name: kind}
    assert info.final is None


@pytest.mark.parametrize("operator", ACTIVATION_OPERATORS)
def test_an_operator_of_its_own_is_recorded(tmp_path: Path, operator: str) -> None:
    slope = [tensor("w", 3, 1, 1)] if operator == "PRelu" else []
    act = node(operator, ["x", *(["w"] if slope else [])], "act")
    assert inspect_model(file(tmp_path, [act], *slope, opset=24)).substitutable == {
        "act": ACTIVATION_OPERATORS[operator]
    }


@pytest.mark.parametrize(
    ("nodes", "name", "words"),
    [
        ([node("Sin", ["x"], "act")], "act", r"node 'act' \(Sin\): no core computes it; ReLU or ReLU6 would work"),
        ([node("Tanh", ["x"], "s"), node("Exp", ["s"], "act")], "act", r"node 'act' \(Exp\): no core computes it"),
        # The sigmoid is read by others too, so that it must be there.
        (
            [node("Sigmoid", ["x"], "s"), node("Mul", ["s", "x"], "m"), node("Add", ["m", "s"], "act")],
            "s",
            "gate of a squeeze-and-excitation block",
        ),
        (
            [
                node("GlobalAveragePool", ["x"], "p"),
                node("HardSigmoid", ["p"], "gate"),
                node("Mul", ["x", "gate"], "act"),
            ],
            "gate",
            r"node 'gate' \(HardSigmoid\): it is the gate of a squeeze-and-excitation block",
        ),
    ],
)
def test_what_is_no_such_function_is_refused_by_name(
    tmp_path: Path, nodes: list[onnx.NodeProto], name: str, words: str
) -> None:
    with pytest.raises(UnsupportedOperator, match=words) as caught:
        inspect_model(file(tmp_path, nodes))
    assert caught.value.param == name


@pytest.mark.parametrize("y", [POINTS, np.maximum(POINTS, 0), np.clip(POINTS, 0, 6), np.clip(POINTS, 0, 1), POINTS**2])
def test_what_a_core_computes_is_no_activation_to_substitute(y: Any) -> None:
    assert identify(y) is None


def test_a_long_chain_of_operations_does_not_keep_its_reader_busy() -> None:
    chain = [Operation(f"n{i}", "Mul", (f"t{i}", f"t{i}"), f"t{i + 1}") for i in range(4_000)]
    assert recognised(chain, {f"t{i}": 2 for i in range(4_001)}) == []


def test_a_sigmoid_at_the_end_is_known(tmp_path: Path) -> None:
    nodes = [node("Flatten", ["x"], "f"), node("Sigmoid", ["f"], "y", name="squash")]
    info = inspect_model(save(with_head(*nodes), tmp_path))
    assert info.final == FinalActivation(node="squash", reads="f")
    data = DatasetInfo(splits={"train": SplitInfo(samples=4, sample_shape=(3, 8, 8), dtype="float32")})
    check_fit(spec(), info, data)
    with pytest.raises(UnsupportedOperator, match=r"reconstruction needs its values.*part: {to: f}") as caught:
        check_fit(spec(task="reconstruction"), info, data)
    assert caught.value.param == "squash"
    check_fit(spec(task="reconstruction", substitute={"sigmoid": "relu6"}), info, data)


def test_a_softmax_at_the_end_is_dropped_where_its_values_do_not_count(tmp_path: Path) -> None:
    nodes = [node("Flatten", ["x"], "f"), node("Softmax", ["f"], "y", name="squash")]
    info = inspect_model(save(with_head(*nodes), tmp_path))
    assert info.final == FinalActivation(node="squash", kind="softmax", reads="f")
    data = DatasetInfo(splits={"train": SplitInfo(samples=4, sample_shape=(3, 8, 8), dtype="float32")})
    for task in ("classification", "imitation"):
        check_fit(spec(task=task), info, data)
    with pytest.raises(UnsupportedOperator, match=r"'squash' \(Softmax\).*reconstruction needs.*part: {to: f}"):
        check_fit(spec(task="reconstruction"), info, data)


def spec(**parts: Any) -> JobSpec:
    return parse_spec({"model": "m", "dataset": "d", **parts})


def test_a_job_is_refused_before_it_is_queued_unless_it_covers_them() -> None:
    nodes = {f"a{i}": "hardswish" for i in range(5)} | {"b": "silu"}
    info = ModelInfo(
        opset=17,
        input={"name": "x", "shape": (3, 8, 8)},
        output={"name": "y", "shape": (10,)},
        operators={},
        layers=(),
        parameters=1,
        substitutable=nodes,
    )
    data = DatasetInfo(splits={"train": SplitInfo(samples=4, sample_shape=(3, 8, 8), dtype="float32")})
    with pytest.raises(UnsupportedOperator) as caught:
        check_fit(spec(), info, data)
    assert caught.value.detail.startswith(
        "no core computes hardswish (node 'a0', 'a1', 'a2' and 2 more); silu (node 'b'). "
        "substitute: {hardswish: relu6, silu: relu} in the job (--substitute hardswish=relu6 silu=relu)"
    )
    with pytest.raises(UnsupportedOperator, match=r"substitute: {silu: relu} in the job"):
        check_fit(spec(substitute={"hardswish": "relu6"}), info, data)
    check_fit(spec(substitute={"hardswish": "relu6", "silu": "relu"}), info, data)
    check_fit(spec(start_from="job_1/float"), info, data)  # whose network has none any more


def test_what_was_stored_before_there_were_substitutions_still_reads() -> None:
    stored = {
        "opset": 17,
        "input": {"name": "x", "shape": [3]},
        "output": {"name": "y", "shape": [3]},
        "operators": {},
        "layers": [],
        "parameters": 1,
    }
    info = ModelInfo.model_validate(stored)
    assert (info.substitutable, info.final) == ({}, None)


@pytest.mark.parametrize(
    ("substitute", "words"),
    [
        ({"hard_swish": "relu6"}, "'hard_swish' is no activation that can be substituted; did you mean 'hardswish'?"),
        ({"swish": "relu"}, "did you mean 'silu'?"),
        ({"nn.LeakyReLU": "relu"}, "did you mean 'leaky_relu'?"),
        ({"relu": "relu6"}, "There are hardswish|there are hardswish|did you mean"),
        ({"silu": "relu7"}, "'relu7' is no activation that a core computes; did you mean 'relu"),
        ({"silu": "tanh"}, "there are relu, relu6"),
    ],
)
def test_unknown_activations_are_refused_with_a_suggestion(substitute: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSpec, match=words.replace("?", r"\?")) as caught:
        spec(substitute=substitute)
    assert caught.value.param is not None
    assert caught.value.param.startswith("substitute.")


def test_something_is_proposed_for_every_activation() -> None:
    assert PROPOSED.keys() == {*ACTIVATIONS} == {*ACTIVATION_OPERATORS.values()}
    assert spec(substitute=PROPOSED).substitute == PROPOSED


def test_operators_of_installed_packages_pass_inspection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = helper.make_node("Squash", ["x"], ["act"], name="act", domain="com.example", bound=2.0)
    model = with_head(
        own, node("Conv", ["act", "w"], "conv"), node("Flatten", ["conv"], "y"), weights=[tensor("w", 4, 3, 3, 3)]
    )
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    path = save(model, tmp_path)
    with pytest.raises(
        UnsupportedOperator, match=r"comes from the domain 'com.example'.* a package that brings this one"
    ):
        inspect_model(path)
    entry = EntryPoint("com.example.Squash", "no_such_package:operators", own_operators.GROUP)
    monkeypatch.setattr(own_operators, "entry_points", lambda group: [entry] if group == own_operators.GROUP else [])
    info = inspect_model(path)  # which loads nothing of the package
    assert (info.operators["com.example.Squash"], info.output.shape) == (1, (4 * 6 * 6,))
