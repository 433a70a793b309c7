"""What inspection finds in good ONNX files, and that each bad one is refused by the name of what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection import inspect_model, node_names
from dianaq.inspection.node_rules import RULES
from dianaq.inspection.operators import INTEGER_INPUTS, LINEAR_OPERATORS, SUPPORTED_OPERATORS

from .onnx_samples import SHAPE, classifier, make_model, node, save, tensor, with_head

AXES = numpy_helper.from_array(np.array([2, 3]), "axes")
HUGE = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**20, 2**20])


def test_reports_what_a_model_holds(tmp_path: Path) -> None:
    info = inspect_model(save(classifier(), tmp_path))
    assert info.opset == 17
    assert (info.input.name, info.input.shape) == ("x", (3, 8, 8))
    assert (info.output.name, info.output.shape) == ("fc", (10,))
    assert info.operators["Conv"] == 1
    assert info.layers == ("conv", "fc")
    assert info.parameters == 4 * 3 * 9 + 4 * 4 + 40 + 10


@pytest.mark.parametrize("batch", ["N", None, 1, 7])
def test_takes_any_batch(tmp_path: Path, batch: str | int | None) -> None:
    assert inspect_model(save(classifier(input_shape=(batch, *SHAPE[1:])), tmp_path)).output.shape == (10,)


@pytest.mark.parametrize(
    ("name", "layers", "classes"),
    [("resnet8", 10, 12), ("resnet20", 22, 12), ("mobilenetv1", 28, 12), ("dscnn", 10, 12), ("dae", 10, 784)],
)
def test_takes_trained_networks(shared_data: Path, name: str, layers: int, classes: int) -> None:
    info = inspect_model(shared_data / "models" / f"diana_{name}.onnx")
    assert len(info.layers) == layers
    assert info.output.shape == (classes,)


@pytest.mark.parametrize(
    "head",
    [
        [node("ReduceMean", ["x", "axes"], "y", keepdims=0)],
        [node("ReduceMean", ["x", "axes"], "m"), node("Squeeze", ["m", "axes"], "y")],
        [node("GlobalAveragePool", ["x"], "m"), node("Flatten", ["m"], "f"), node("Softmax", ["f"], "y")],
        [node("Clip", ["x", "zero", "six"], "c"), node("Flatten", ["c"], "y")],
        [node("Clip", ["x", "zero"], "c"), node("Flatten", ["c"], "y")],
        [node("Dropout", ["x"], "d"), node("Identity", ["d"], "i"), node("Flatten", ["i"], "y")],
        [node("MaxPool", ["x"], "p", kernel_shape=[2, 2], strides=[2, 2]), node("Flatten", ["p"], "y")],
        [node("AveragePool", ["x"], "p", kernel_shape=[3, 3], auto_pad="SAME_UPPER"), node("Flatten", ["p"], "y")],
        [node("Conv", ["x", "depthwise"], "c", group=3, pads=[0, 1, 2, 1]), node("Flatten", ["c"], "y")],
        [node("Flatten", ["x"], "f"), node("MatMul", ["f", "w"], "m"), node("Add", ["m", "b"], "y")],
        [
            helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([0, -1]))),
            node("Reshape", ["x", "shape"], "y"),
        ],
    ],
    ids=lambda head: "-".join(n.op_type for n in head),
)
def test_takes_the_supported_forms(tmp_path: Path, head: list[onnx.NodeProto]) -> None:
    weights = [
        AXES,
        tensor("zero", value=0),
        tensor("six", value=6),
        tensor("depthwise", 3, 1, 3, 3),
        tensor("w", 192, 5),
        tensor("b", 5),
    ]
    used = {name for n in head for name in n.input}
    model = with_head(*head, weights=[w for w in weights if w.name in used], opset=18)
    assert len(inspect_model(save(model, tmp_path)).output.shape) == 1


def test_takes_old_forms(tmp_path: Path) -> None:
    head = [
        node("Clip", ["x"], "c", min=0.0, max=6.0),
        node("ReduceMean", ["c"], "m", axes=[-1, -2], keepdims=0),
        node("Softmax", ["m"], "y"),
    ]
    assert inspect_model(save(with_head(*head, opset=9), tmp_path)).output.shape == (3,)


def _spoil(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = classifier()
    change(model)
    return model


def _external(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")


def _set(model: onnx.ModelProto, index: int, values: onnx.TensorProto) -> None:
    values.name = model.graph.initializer[index].name
    model.graph.initializer[index].CopyFrom(values)


def _train(model: onnx.ModelProto) -> None:
    norm = model.graph.node[1]
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["running_mean", "running_var"])


def _train_in_opset_13(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 13
    model.graph.node[1].output.extend(["new_mean", "new_var", "saved_mean", "saved_var"])


def _flat(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), opset: int = 17) -> onnx.ModelProto:
    return with_head(*nodes, node("Flatten", [nodes[-1].output[0]], "y"), weights=weights, opset=opset)


NAN = tensor("", 4, 3, 3, 3)
NAN.raw_data = np.where(np.arange(108) == 9, np.nan, 1).astype(np.float32).tobytes()

BAD_MODELS = {
    "external data": (_spoil(_external), ["'conv.weight'", "another file"]),
    "float16 weights": (
        _spoil(lambda m: _set(m, 0, tensor("", 4, 3, 3, 3, dtype=np.float16))),
        ["'conv.weight'", "'conv'", "float16", "float32"],
    ),
    "double weights": (
        _spoil(lambda m: _set(m, 5, tensor("", 10, 4, dtype=np.float64))),
        ["'fc.weight'", "double"],
    ),
    "NaN weight": (_spoil(lambda m: _set(m, 0, NAN)), ["'conv.weight'", "nan", "[0, 1, 0, 0]"]),
    "damaged weight": (
        _spoil(lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234")),
        ["'conv.weight'", "damaged"],
    ),
    "input type": (classifier(input_type=TensorProto.FLOAT16), ["'x'", "float16"]),
    "dynamic size": (classifier(input_shape=("N", 3, "H", 8)), ["'x'", "(N, 3, H, 8)", "dimension 2"]),
    "no shape": (classifier(input_shape=None), ["'x'", "no shape"]),
    "scalar input": (classifier(input_shape=()), ["'x'", "()"]),
    "two outputs": (
        _spoil(lambda m: m.graph.output.append(helper.make_tensor_value_info("bn", 1, None))),
        ["exactly one output", "'fc'", "'bn'"],
    ),
    "two inputs": (
        _spoil(lambda m: m.graph.input.append(helper.make_tensor_value_info("z", 1, None))),
        ["exactly one input", "'x'", "'z'"],
    ),
    "old opset": (classifier(opset=6), ["opset 6", "7 to"]),
    "new opset": (classifier(opset=1000), ["opset 1000"]),
    "no nodes": (_spoil(lambda m: m.graph.ClearField("node")), ["no nodes"]),
    "from nowhere": (
        _spoil(lambda m: m.graph.node[2].input.__setitem__(0, "ghost")),
        ["'relu'", "'ghost'", "nothing produces"],
    ),
    "out of order": (
        _spoil(lambda m: m.graph.node[2].input.__setitem__(0, "fc")),
        ["'relu'", "'fc'", "later node"],
    ),
    "produced twice": (_spoil(lambda m: m.graph.node[2].output.__setitem__(0, "bn")), ["'bn'", "twice"]),
    "two initialisers of one name": (
        _spoil(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        ["two initialisers", "'conv.weight'"],
    ),
    "unproduced output": (
        _spoil(lambda m: setattr(m.graph.output[0], "name", "logits")),
        ["'logits'", "not produced"],
    ),
    "too many parameters": (_spoil(lambda m: m.graph.initializer.append(HUGE)), ["parameters", "at most"]),
    "large input": (classifier(input_shape=("N", 3, 8000, 8000)), ["'x'", "more than"]),
    "channels": (classifier(input_shape=("N", 5, 8, 8)), ["'conv'", "5"]),
    "matrix": (
        with_head(node("Flatten", ["x"], "f"), node("MatMul", ["f", "w"], "y"), weights=[tensor("w", 7, 5)]),
        ["do not fit together", "MatMul"],
    ),
    "negative variance": (_spoil(lambda m: _set(m, 4, tensor("", 4, value=-1))), ["'bn'", "'var'", "negative"]),
    "missing inputs": (_spoil(lambda m: m.graph.node[0].input.pop()), ["standard"]),
    "sparse": (
        _spoil(lambda m: m.graph.sparse_initializer.add().values.CopyFrom(tensor("s", 1))),
        ["'s'", "sparse"],
    ),
}

UNSUPPORTED = {
    "operator": (_flat(node("Sin", ["x"], "act")), ["'act'", "Sin", "ReLU or ReLU6 would work"]),
    "unnamed": (_flat(node("Sin", ["x"], "act", name="")), ["'Sin_0'"]),
    "domain": (_flat(node("Gelu", ["x"], "act", domain="com.microsoft")), ["'act'", "Gelu", "com.microsoft"]),
    "conv 3-d": (
        make_model(
            [node("Conv", ["x", "w"], "c"), node("Flatten", ["c"], "y")],
            [tensor("w", 4, 3, 3, 3, 3)],
            input_shape=("N", 3, 8, 8, 8),
            output_shape=None,
        ),
        ["'c'", "3-d kernels", "1-d and 2-d"],
    ),
    "computed weights": (
        with_head(node("Flatten", ["x"], "f"), node("Gemm", ["w", "f"], "y", transB=1), weights=[tensor("w", 4, 192)]),
        ["'y'", "'f'", "constant"],
    ),
    "pads": (
        _flat(node("Conv", ["x", "w"], "c", pads=[9] * 4), weights=(tensor("w", 4, 3, 3, 3),)),
        ["'c'", "pads [9, 9, 9, 9]"],
    ),
    "clip": (
        _flat(node("Clip", ["x", "l", "h"], "c"), weights=(tensor("l", value=-1), tensor("h", value=1))),
        ["'c'", "-1.0 and 1.0", "ReLU6"],
    ),
    "add broadcast": (
        _flat(node("GlobalAveragePool", ["x"], "p"), node("Add", ["x", "p"], "a")),
        ["'a'", "(3, 8, 8)", "(3, 1, 1)"],
    ),
    "max pool indices": (
        _flat(helper.make_node("MaxPool", ["x"], ["p", "i"], "p", kernel_shape=[2, 2]), node("Relu", ["p"], "r")),
        ["'p'", "indices"],
    ),
    "mean over channels": (_flat(node("ReduceMean", ["x"], "m", axes=[1])), ["'m'", "axes [1]"]),
    "flatten from the batch": (with_head(node("Flatten", ["x"], "y", axis=0)), ["'y'", "(1, 384)", "batch is 2"]),
    "reshape": (
        _flat(node("Reshape", ["x", "s"], "r"), weights=(numpy_helper.from_array(np.array([3, -1]), "s"),)),
        ["'r'", "(3, 128)", "batch is 2 samples of 192 values"],
    ),
    "squeezed batch": (
        make_model([node("Squeeze", ["x"], "y")], [], input_shape=(1, 3, 1, 1), output_shape=None),
        ["'y'", "names no axes"],
    ),
    "transposed batch": (_flat(node("Transpose", ["x"], "t", perm=[1, 0, 2, 3])), ["'t'", "perm [1, 0, 2, 3]"]),
    "unsqueezed batch": (
        _flat(node("Unsqueeze", ["x", "a"], "u"), weights=(numpy_helper.from_array(np.array([0]), "a"),)),
        ["'u'", "axes [0]"],
    ),
    "gemm": (
        with_head(node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "y", transA=1), weights=[tensor("w", 2, 4)]),
        ["'y'", "transA = 1"],
    ),
    "softmax inside": (
        with_head(node("Flatten", ["x"], "f"), node("Softmax", ["f"], "s"), node("Relu", ["s"], "y")),
        ["'s'", "not the last"],
    ),
    "softmax over an image": (with_head(node("Softmax", ["x"], "y")), ["'y'", "(3, 8, 8)"]),
    "training dropout": (
        _flat(
            node("Dropout", ["x", "ratio", "on"], "d"),
            weights=(tensor("ratio", value=0.5), tensor("on", value=True, dtype=np.bool_)),
        ),
        ["'d'", "training mode"],
    ),
    "training batch norm": (
        _spoil(_train),
        ["'bn'", "training mode"],
    ),
    "training batch norm, before it said so": (
        _spoil(_train_in_opset_13),
        ["'bn'", "training mode", "after model.eval()"],
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_refuses_a_bad_model(tmp_path: Path, case: str) -> None:
    model, words = BAD_MODELS[case]
    path = save(model, tmp_path)
    with pytest.raises(InvalidModel) as caught:
        inspect_model(path)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_refuses_what_the_chip_cannot_compute(tmp_path: Path, case: str) -> None:
    model, words = UNSUPPORTED[case]
    with pytest.raises(UnsupportedOperator) as caught:
        inspect_model(save(model, tmp_path))
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert caught.value.param is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x08\x09not a model at all", "not ONNX"),
        (b"\x00" * 100, "not ONNX"),
        (b"PK\x03\x04 a checkpoint", "holds weights"),
        (classifier().SerializeToString()[:-40], "truncated"),
        (classifier().SerializeToString()[:10], "truncated"),
    ],
)
def test_refuses_what_is_not_onnx(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=words):
        inspect_model(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = classifier().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidModel):
            inspect_model(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="No such file"):
        inspect_model(tmp_path / "none.onnx")


def test_refuses_a_tensor_that_explodes(tmp_path: Path) -> None:
    weights = [tensor(f"w{i}", 64, 3 if i == 0 else 64, 1, 1) for i in range(2)]
    head = [
        node("Conv", ["x", "w0"], "a"),
        node("Conv", ["a", "w1"], "b"),
        node("Flatten", ["b"], "y"),
    ]
    model = make_model(head, weights, input_shape=("N", 3, 1000, 1000), output_shape=None)
    with pytest.raises(InvalidModel, match=r"'a' \(Conv\) produces the shape \(64, 1000, 1000\)"):
        inspect_model(save(model, tmp_path))


def test_a_shared_parameter_behind_an_identity_is_constant(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node.insert(0, node("Identity", ["scale"], "copy"))
    model.graph.node[2].input[1] = "copy"
    assert inspect_model(save(model, tmp_path)).layers == ("conv", "fc")


def test_node_names_are_unique_and_stable() -> None:
    names = ["fc", "", "fc", "Relu_4", "", "fc_2"]
    nodes = [node("Relu", ["x"], f"t{i}", name=name) for i, name in enumerate(names)]
    found = node_names(helper.make_graph(nodes, "g", [], []))
    assert found == ["fc", "Relu_1", "fc_2_", "Relu_4", "Relu_4_", "fc_2"]


def test_tables_speak_of_supported_operators_only() -> None:
    assert RULES.keys() | LINEAR_OPERATORS | INTEGER_INPUTS.keys() <= SUPPORTED_OPERATORS.keys()
