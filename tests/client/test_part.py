"""Parts of networks: cut by names, or refused with a way out; and what is known of networks taken in parts only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dianaq.errors import InvalidModel, InvalidSpec, UnsupportedOperator
from dianaq.inspection import check_fit, inspect_model, inspect_upload
from dianaq.inspection.model import parse_model
from dianaq.inspection.tensors import survey
from dianaq.inspection.whole import HINT
from dianaq.schemas.resources import DatasetInfo, ModelInfo, SplitInfo
from dianaq.schemas.spec import NetworkPart, parse_spec

from .onnx_samples import classifier, make_model, node, save, tensor, with_head

DATASET = DatasetInfo(splits={"train": SplitInfo(samples=9, sample_shape=(3, 8, 8), dtype="float32", label_max=9)})


def part(**ends: str) -> NetworkPart:
    return NetworkPart.model_validate(ends)


def two_headed() -> onnx.ModelProto:
    """The classifier, and after its second convolution's ReLU another head with a node that no core computes."""
    model = classifier()
    head = [
        node("Flatten", ["relu"], "wide"),
        node("Gemm", ["wide", "boxes.weight"], "boxes.raw", name="boxes.fc", transB=1),
        node("Sin", ["boxes.raw"], "boxes"),
    ]
    model.graph.node.extend(head)
    model.graph.initializer.append(tensor("boxes.weight", 5, 256))
    model.graph.output.append(helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 5]))
    return model


def prepared() -> onnx.ModelProto:
    """The classifier behind a pre-processing of pixels: (N, 8, 8, 3) bytes, whose batch the head reads by its shape."""
    model = classifier()
    front = [
        node("Cast", ["pixels"], "cast", to=TensorProto.FLOAT),
        node("Transpose", ["cast"], "moved", perm=[0, 3, 1, 2]),
        node("Sin", ["moved"], "x", name="normalise"),
    ]
    batch = [
        node("Shape", ["pixels"], "shape"),
        node("Gather", ["shape", "zero"], "n", axis=0),
        node("Concat", ["n", "rest"], "target", axis=0),
        node("Reshape", ["pool", "target"], "flat"),
    ]
    nodes = [n for n in model.graph.node if n.name != "flat"]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*front, *nodes[:-1], *batch, nodes[-1]])
    model.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 8, 3]))
    for name, value in (("zero", [0]), ("rest", [-1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return model


@pytest.mark.parametrize(
    ("model", "ends", "input", "output", "layers"),
    [
        (two_headed, {"to": "fc"}, ("x", (3, 8, 8)), ("fc", (10,)), ("conv", "fc")),
        (two_headed, {"to": "boxes.raw"}, ("x", (3, 8, 8)), ("boxes.raw", (5,)), ("conv", "boxes.fc")),
        (two_headed, {"to": "boxes.fc"}, ("x", (3, 8, 8)), ("boxes.raw", (5,)), ("conv", "boxes.fc")),
        (two_headed, {"from": "bn", "to": "fc"}, ("bn", (4, 8, 8)), ("fc", (10,)), ("fc",)),
        (prepared, {"from": "x"}, ("x", (3, 8, 8)), ("fc", (10,)), ("conv", "fc")),
        (prepared, {"from": "conv"}, ("conv", (4, 8, 8)), ("fc", (10,)), ("fc",)),
        (prepared, {"from": "x", "to": "relu"}, ("x", (3, 8, 8)), ("relu", (4, 8, 8)), ("conv",)),
    ],
)
def test_a_part_is_a_network(
    tmp_path: Path, model: Callable[[], onnx.ModelProto], ends: dict[str, str], input: Any, output: Any, layers: Any
) -> None:
    path = save(model(), tmp_path)
    info = inspect_model(path, part=part(**ends))
    assert (info.input.name, info.input.shape) == input
    assert (info.output.name, info.output.shape) == output
    assert info.layers == layers
    assert info.refusal is None


@pytest.mark.parametrize(("source", "sink"), [("x", "fc"), ("conv", "fc"), ("x", "relu")])
def test_a_part_computes_what_the_whole_does(tmp_path: Path, source: str, sink: str) -> None:
    path = save(prepared(), tmp_path)
    whole = parse_model(path)
    whole.graph.output.extend(helper.make_tensor_value_info(n, 1, None) for n in (source, sink) if n != "fc")
    outputs = [value.name for value in whole.graph.output]
    pixels = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)
    found = dict(zip(outputs, ReferenceEvaluator(whole).run(None, {"pixels": pixels}), strict=True))
    piece = parse_model(path, part(**{"from": source, "to": sink}))
    np.testing.assert_allclose(
        ReferenceEvaluator(piece).run(None, {source: found[source]})[0], found[sink], rtol=1e-5, atol=1e-5
    )


def joined_by_a_shortcut() -> onnx.ModelProto:
    return with_head(
        node("Relu", ["x"], "a"),
        node("Relu", ["a"], "b"),
        node("Add", ["a", "b"], "c", name="sum"),
        node("Flatten", ["c"], "y"),
    )


def two_inputs() -> onnx.ModelProto:
    model = with_head(node("Add", ["x", "z"], "sum"), node("Relu", ["sum"], "r"), node("Flatten", ["r"], "y"))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3, 8, 8]))
    return model


def of_any_size() -> onnx.ModelProto:
    nodes = [node("Relu", ["x"], "r"), node("GlobalAveragePool", ["r"], "p"), node("Flatten", ["p"], "y")]
    return make_model(nodes, [], input_shape=("N", 3, "H", "W"), output_shape=None)


def windows() -> onnx.ModelProto:
    weights = (numpy_helper.from_array(np.array([-1, 3]), "s"),)
    return with_head(node("Reshape", ["x", "s"], "w"), node("Relu", ["w"], "y"), weights=weights)


@pytest.mark.parametrize(
    ("model", "ends", "param", "words"),
    [
        (two_headed, {"from": "conv"}, "part.to", ["2 outputs: 'fc', 'boxes'", "part.to must name one"]),
        (two_headed, {"to": "box"}, "part.to", ["'box', which is no tensor", "'boxes'", "dianaq inspect"]),
        (two_headed, {"from": "rel", "to": "fc"}, "part.from", ["'rel'", "'relu'"]),
        (two_headed, {"to": "x"}, "part.to", ["an input of the network"]),
        (two_headed, {"to": "fc.weight"}, "part.to", ["a constant"]),
        (two_headed, {"from": "fc.weight", "to": "fc"}, "part.from", ["a constant"]),
        (two_headed, {"from": "relu", "to": "relu"}, "part", ["both the tensor 'relu'"]),
        (two_headed, {"from": "flat", "to": "boxes"}, "part.from", ["'boxes' does not follow from it"]),
        (two_headed, {"from": "fc", "to": "relu"}, "part.from", ["'relu' does not follow from it"]),
        (joined_by_a_shortcut, {"from": "b"}, "part.from", ["from 'b'", "from 'x'", "through which all ways lead"]),
        (joined_by_a_shortcut, {"from": "sum"}, "part.from", ["has 2 inputs; name one of them: 'a', 'b'"]),
        (two_inputs, {"to": "r"}, "part.from", ["'r' follows from 'x', 'z'; a network has one input"]),
        (of_any_size, {"from": "r"}, "part.from", ["cannot be told", "(2, 3, '?', '?')", "only the batch"]),
        (windows, {"from": "w"}, "part.from", ["(128, 3)", "batch is 2"]),
    ],
)
def test_ends_that_do_not_fit(
    tmp_path: Path, model: Callable[[], onnx.ModelProto], ends: dict[str, str], param: str, words: list[str]
) -> None:
    path = save(model(), tmp_path)
    with pytest.raises(InvalidSpec) as caught:
        inspect_model(path, part=part(**ends))
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert caught.value.param == param


def test_behind_two_inputs_a_part_begins(tmp_path: Path) -> None:
    assert inspect_model(save(two_inputs(), tmp_path), part=part(**{"from": "sum"})).input.shape == (3, 8, 8)


def test_what_a_part_holds_is_checked_as_a_network_is(tmp_path: Path) -> None:
    path = save(two_headed(), tmp_path)
    with pytest.raises(UnsupportedOperator, match=r"node 'boxes' \(Sin\): no core computes it"):
        inspect_model(path, part=part(to="boxes"))
    path = save(prepared(), tmp_path)
    with pytest.raises(InvalidModel, match="input 'pixels' is uint8"):
        inspect_model(path, part=part(to="conv"))


def test_every_tensor_is_listed_with_its_shape(tmp_path: Path) -> None:
    found = survey(parse_model(save(prepared(), tmp_path))).listing()
    assert [(n.name, n.operator, n.output, n.shape) for n in found][:4] == [
        ("cast", "Cast", "cast", (2, 8, 8, 3)),
        ("moved", "Transpose", "moved", (2, 3, 8, 8)),
        ("normalise", "Sin", "x", (2, 3, 8, 8)),
        ("conv", "Conv", "conv", (2, 4, 8, 8)),
    ]
    assert not {"Shape", "Gather", "Concat"} & {n.operator for n in found}


def test_behind_an_operator_that_onnx_does_not_know_the_file_is_believed(tmp_path: Path) -> None:
    model = with_head(
        node("Odd", ["x"], "o", domain="com.example"), node("Relu", ["o"], "r"), node("Flatten", ["r"], "y")
    )
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(InvalidSpec, match="cannot be told"):
        inspect_model(save(model, tmp_path), part=part(**{"from": "o"}))
    model.graph.value_info.append(helper.make_tensor_value_info("o", TensorProto.FLOAT, ["N", 4, 2, 2]))
    assert inspect_model(save(model, tmp_path), part=part(**{"from": "o"})).output.shape == (16,)


def test_a_network_that_is_refused_as_a_whole_is_described(tmp_path: Path) -> None:
    path = save(two_headed(), tmp_path)
    with pytest.raises(InvalidModel) as caught:
        inspect_model(path)
    info = inspect_upload(path)
    assert isinstance(info, ModelInfo)
    assert info.refusal is not None
    assert info.refusal.detail == f"{caught.value.detail}; {HINT}"
    assert (info.input.name, info.input.shape, info.output.name, info.output.shape) == ("x", (3, 8, 8), "fc", (10,))
    assert info.layers == ("conv", "fc", "boxes.fc")
    spec = parse_spec({"model": "m", "dataset": "d"})
    with pytest.raises(InvalidModel, match="exactly one output"):
        check_fit(spec, info, DATASET)
    check_fit(spec, inspect_model(path, part=part(to="fc")), DATASET)


def test_a_network_of_any_size_is_described(tmp_path: Path) -> None:
    info = inspect_upload(save(of_any_size(), tmp_path))
    assert isinstance(info, ModelInfo)
    assert info.refusal is not None
    assert "dimension 2 is dynamic" in info.refusal.detail
    assert info.input.shape == (3, 0, 0)


def test_where_no_part_helps_none_is_offered(tmp_path: Path) -> None:
    """A supported operator that is used in an unsupported way is to be used in another one."""
    weights = [tensor("ratio", value=0.5), tensor("on", value=True, dtype=np.bool_)]
    model = with_head(node("Dropout", ["x", "ratio", "on"], "d"), node("Flatten", ["d"], "y"), weights=weights)
    info = inspect_upload(save(model, tmp_path))
    assert isinstance(info, ModelInfo)
    assert info.refusal is not None
    assert info.refusal.type == "unsupported-operator"
    assert HINT not in info.refusal.detail


def _spoilt(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = two_headed()
    change(model)
    return model


NAN = numpy_helper.from_array(np.full((5, 256), np.nan, np.float32), "boxes.weight")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_spoilt(lambda m: m.graph.initializer[-1].CopyFrom(NAN)), "'boxes.weight' holds nan"),
        (_spoilt(lambda m: setattr(m.graph.initializer[-1], "raw_data", b"1234")), "damaged"),
        (_spoilt(lambda m: setattr(m.graph.initializer[-1], "data_location", 1)), "external_data=False"),
        (_spoilt(lambda m: m.graph.node[2].input.__setitem__(0, "ghost")), "'ghost', which nothing produces"),
        (_spoilt(lambda m: m.graph.output.add(name="lost")), "'lost' is not produced"),
        (_spoilt(lambda m: m.graph.initializer.append(m.graph.initializer[0])), "two initialisers"),
    ],
)
def test_a_damaged_network_is_refused_whatever_it_holds(tmp_path: Path, model: onnx.ModelProto, words: str) -> None:
    with pytest.raises(InvalidModel, match=words):
        inspect_upload(save(model, tmp_path))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"part": {}}, "names neither from nor to"),
        ({"part": {"to": ""}}, "part.to"),
        ({"part": {"to": "a\0b"}}, "part.to"),
        ({"part": {"to": "a" * 2_000}}, "part.to"),
        ({"part": {"until": "a"}}, "part.until"),
        (
            {
                "part": {"to": "fc"},
                "model": {"architecture": "resnet8", "input_shape": [3, 8, 8], "classes": 10, "weights": "w"},
            },
            "resnet8 is built whole",
        ),
    ],
)
def test_parts_that_are_none(data: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        parse_spec({"model": "m", "dataset": "d", **data})


def test_a_part_is_written_as_it_is_read() -> None:
    spec = parse_spec({"model": "m", "dataset": "d", "part": {"from": "a", "to": "b"}})
    assert spec.recorded()["part"] == {"from": "a", "to": "b"}
    assert str(spec.part) == "from 'a' to 'b'"
    assert parse_spec(spec.recorded()) == spec
