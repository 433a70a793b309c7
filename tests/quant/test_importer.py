"""ONNX operators, one by one: what they become, and how they are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from torch import nn

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection.operators import SUPPORTED_OPERATORS
from dianaq_quant.importers.operators import HANDLERS
from dianaq_quant.modules.structure import AvgPool2d, Ceiling, Conv2d, GlobalAvgPool2d, MaxPool2d

from .builder import ModelBuilder, Tensor
from .support import kinds, modules, network_of, outputs, run_onnx

MAP = (4, 6, 5)

Recipe = Callable[[ModelBuilder], Tensor]


def built(recipe: Recipe, *, opset: int = 13, shape: tuple[int, ...] = MAP) -> onnx.ModelProto:
    b = ModelBuilder(shape, opset=opset, seed=1)
    return b.build(recipe(b))


def clip(b: ModelBuilder, *bounds: float | None) -> Tensor:
    return b.node("Clip", [b.input, *("" if v is None else b.constant(v) for v in bounds)], MAP)


def nameless(b: ModelBuilder) -> Tensor:
    return b.relu(b.conv(b.input, 2, name=""), name="")


def conv_and_constant(shape: tuple[int, ...]) -> Recipe:
    """A convolution to (6, 4, 3) without bias, plus a constant of some shape."""

    def recipe(b: ModelBuilder) -> Tensor:
        x = b.conv(b.input, 6, bias=False, name="conv")
        return b.node("Add", [x, b.constant(b.random.normal(size=shape))], x.shape, "plus")

    return recipe


ACCEPTED: dict[str, tuple[Recipe, list[str]]] = {
    "conv": (lambda b: b.conv(b.input, 3), ["Conv2d"]),
    "conv without bias": (lambda b: b.conv(b.input, 3, bias=False), ["Conv2d"]),
    "depthwise": (lambda b: b.conv(b.input, 8, group=4), ["Conv2d"]),
    "grouped": (lambda b: b.conv(b.input, 6, group=2), ["Conv2d"]),
    "asymmetric pads": (lambda b: b.conv(b.input, 3, pads=(0, 1, 2, 1)), ["Conv2d"]),
    "stride and dilation": (lambda b: b.conv(b.input, 3, (3, 2), stride=(2, 1), dilation=(2, 3)), ["Conv2d"]),
    "SAME_UPPER": (lambda b: b.conv(b.input, 3, (3, 2), stride=(2, 2), auto_pad="SAME_UPPER"), ["Conv2d"]),
    "SAME_LOWER": (lambda b: b.conv(b.input, 3, (3, 2), stride=(2, 2), auto_pad="SAME_LOWER"), ["Conv2d"]),
    "VALID": (lambda b: b.conv(b.input, 3, auto_pad="VALID"), ["Conv2d"]),
    "batch norm": (lambda b: b.batch_norm(b.input), ["BatchNorm2d"]),
    "relu": (lambda b: b.relu(b.input), ["ReLU"]),
    "relu6": (lambda b: b.relu6(b.input), ["Ceiling"]),
    "clip without maximum": (lambda b: clip(b, 0.0), ["ReLU"]),
    "clip at the largest float": (lambda b: clip(b, 0.0, float(np.finfo(np.float32).max)), ["ReLU"]),
    "add": (lambda b: b.add(b.input, b.relu(b.input)), ["ReLU", "Add"]),
    "add to itself": (lambda b: b.add(b.input, b.input), ["Add"]),
    "max pool": (lambda b: b.pool("MaxPool", b.input, (3, 2), stride=(2, 1), pads=(1, 0, 0, 1)), ["MaxPool2d"]),
    "ceil_mode that fits": (lambda b: b.pool("MaxPool", b.input, (2, 1), stride=(2, 1), ceil_mode=1), ["MaxPool2d"]),
    "average pool": (lambda b: b.pool("AveragePool", b.input, (2, 3), stride=(2, 1)), ["AvgPool2d"]),
    "average pool with padding": (
        lambda b: b.pool("AveragePool", b.input, (3, 3), pads=(1, 1, 1, 1), count_include_pad=1),
        ["AvgPool2d"],
    ),
    "average pool of the whole map": (lambda b: b.pool("AveragePool", b.input, (6, 5)), ["GlobalAvgPool2d"]),
    "global average pool": (lambda b: b.global_pool(b.input), ["GlobalAvgPool2d"]),
    "mean kept": (lambda b: b.reduce_mean(b.input, keepdims=True, axes=(-1, -2)), ["GlobalAvgPool2d"]),
    "mean": (lambda b: b.reduce_mean(b.input, keepdims=False), ["GlobalAvgPool2d", "Flatten"]),
    "flatten": (lambda b: b.flatten(b.input), ["Flatten"]),
    "reshape": (lambda b: b.reshape(b.input, [0, -1]), ["Flatten"]),
    "squeeze": (lambda b: b.squeeze(b.global_pool(b.input)), ["GlobalAvgPool2d", "Flatten"]),
    "gemm": (lambda b: b.gemm(b.flatten(b.input), 3), ["Flatten", "Linear"]),
    "gemm, weight transposed": (lambda b: b.gemm(b.flatten(b.input), 3, trans_b=0), ["Flatten", "Linear"]),
    "gemm without bias": (lambda b: b.gemm(b.flatten(b.input), 3, bias=False), ["Flatten", "Linear"]),
    "matmul": (lambda b: b.matmul(b.flatten(b.input), 3), ["Flatten", "Linear"]),
    "matmul and bias": (lambda b: b.bias(b.matmul(b.flatten(b.input), 3)), ["Flatten", "Linear"]),
    "bias and matmul": (lambda b: b.bias(b.matmul(b.flatten(b.input), 3), first=True), ["Flatten", "Linear"]),
    "conv and bias": (conv_and_constant((6, 1, 1)), ["Conv2d"]),
    "conv and scalar": (conv_and_constant(()), ["Conv2d"]),
    "identity": (lambda b: b.relu(b.node("Identity", [b.input], MAP)), ["ReLU"]),
    "dropout": (lambda b: b.relu(b.node("Dropout", [b.input], MAP)), ["ReLU"]),
}


@pytest.mark.parametrize(("recipe", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_operator_becomes_modules_that_compute_the_same(recipe: Recipe, expected: list[str]) -> None:
    model = built(recipe)
    x = np.random.default_rng(0).normal(0, 4, (3, *MAP)).astype(np.float32)
    network = network_of(model)
    assert kinds(network.graph) == expected
    np.testing.assert_allclose(outputs(network.graph, x), run_onnx(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [10, 13, 18])
def test_attributes_became_inputs_in_later_opsets(opset: int) -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        return b.squeeze(b.reduce_mean(b.relu6(b.input), keepdims=True))

    model = built(recipe, opset=opset)
    x = np.random.default_rng(0).normal(0, 5, (2, *MAP)).astype(np.float32)
    network = network_of(model)
    assert kinds(network.graph) == ["Ceiling", "GlobalAvgPool2d", "Flatten"]
    np.testing.assert_allclose(outputs(network.graph, x), run_onnx(model, x), rtol=1e-5, atol=1e-6)


def test_parameters_of_windows_and_layers() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.conv(b.input, 6, (3, 1), stride=(1, 2), pads=(1, 0, 2, 0), dilation=(2, 1), group=2)
        x = b.pool("MaxPool", b.relu6(x), (2, 1), stride=(1, 2), pads=(0, 0, 1, 0))
        return b.pool("AveragePool", x, (2, 1), pads=(1, 0, 0, 0), count_include_pad=1)

    network = network_of(built(recipe)).graph
    (conv,) = modules(network, Conv2d)
    assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (4, 6, (3, 1))
    assert (conv.stride, conv.pads, conv.dilation, conv.groups) == ((1, 2), (1, 0, 2, 0), (2, 1), 2)
    (ceiling,) = modules(network, Ceiling)
    assert (ceiling.min_val, ceiling.max_val) == (0.0, 6.0)
    for kind, window in ((MaxPool2d, ((2, 1), (1, 2), (0, 0, 1, 0))), (AvgPool2d, ((2, 1), (1, 1), (1, 0, 0, 0)))):
        (pool,) = modules(network, kind)
        assert (pool.kernel, pool.stride, pool.pads) == window
    assert modules(network, GlobalAvgPool2d) == []


def test_gemm_factors_are_multiplied_in() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        inputs = [b.input, b.constant(np.arange(8).reshape(2, 4)), b.constant([1, 2])]
        return b.node("Gemm", inputs, (2,), transB=1, alpha=0.5, beta=3.0)

    (layer,) = modules(network_of(built(recipe, shape=(4,))).graph, nn.Linear)
    assert layer.weight.tolist() == [[0, 0.5, 1, 1.5], [2, 2.5, 3, 3.5]]
    assert layer.bias.tolist() == [3, 6]


def test_constants_may_be_plain_numbers() -> None:
    b = ModelBuilder((2, 3, 3))
    bounds = [b.node("Constant", [], (), value_float=v) for v in (0.0, 6.0)]
    y = b.node("Clip", [b.conv(b.input, 2, (1, 1)), *bounds], (2, 3, 3))
    y = b.node("Reshape", [y, b.node("Constant", [], (2,), value_ints=[-1, 18])], (18,))
    assert kinds(network_of(b.build(y)).graph) == ["Conv2d", "Ceiling", "Flatten"]


def test_constant_nodes_and_their_identities_are_constants() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        value = onnx.numpy_helper.from_array(np.ones((2, 4), np.float32))
        weight = b.node("Identity", [b.node("Constant", [], (2, 4), value=value)], (2, 4))
        return b.node("Gemm", [b.input, weight, b.constant([0, 1])], (2,), transB=1)

    network = network_of(built(recipe, shape=(4,))).graph
    assert outputs(network, np.ones((1, 4), np.float32)).tolist() == [[4, 5]]


def test_batch_norm_momentum_and_epsilon() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        values = [b.constant(np.full(4, v)) for v in (2, 3, 5, 7)]
        return b.node("BatchNormalization", [b.input, *values], MAP, momentum=0.75, epsilon=0.25)

    (norm,) = modules(network_of(built(recipe)).graph, nn.BatchNorm2d)
    assert (norm.momentum, norm.eps) == (0.25, 0.25)
    found = [t.tolist() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    assert found == [[2] * 4, [3] * 4, [5] * 4, [7] * 4]


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_softmax_at_the_end_is_dropped_and_noted(operator: str) -> None:
    model = built(lambda b: b.node(operator, [b.gemm(b.input, 3)], (3,), "soft", axis=1), shape=(4,))
    network = network_of(model)
    assert kinds(network.graph) == ["Linear"]
    (note,) = network.notes
    assert note.startswith(f"node 'soft' ({operator}) dropped")


def test_dropout_is_noted() -> None:
    model = built(lambda b: b.relu(b.node("Dropout", [b.input], MAP, "drop")))
    assert network_of(model).notes == ["node 'drop' (Dropout) dropped: it is the identity in evaluation"]


def test_ends_and_layer_names() -> None:
    network = network_of(built(nameless))
    assert (network.input_name, network.input_shape, network.output_name) == ("x", MAP, "t1")
    nodes = [n for n in network.graph.graph.nodes if n.op == "call_module"]
    assert [n.meta["layer"] for n in nodes] == ["Conv_0", "Relu_1"]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("/net/net.0/Conv", "net_net_0_Conv"),
        ("0", "n0"),
        ("input", "input_layer"),
        ("output", "output_layer"),
        ("forward", "forward_layer"),
        ("重み", "node"),
    ],
)
def test_layer_names_become_attribute_names(name: str, target: str) -> None:
    network = network_of(built(lambda b: b.relu(b.input, name=name))).graph
    (node,) = (n for n in network.graph.nodes if n.op == "call_module")
    assert (node.target, node.meta["layer"]) == (target, name)


def test_unused_operators_are_left_out() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        used = b.conv(b.input, 2)
        b.batch_norm(used)
        return used

    network = network_of(built(recipe)).graph
    assert kinds(network) == ["Conv2d"]
    assert len(list(network.children())) == 1


def test_bias_of_a_layer_that_is_the_output_stays_apart() -> None:
    """The addition after it is dead; merging it would change the output."""

    def recipe(b: ModelBuilder) -> Tensor:
        used = b.matmul(b.input, 3)
        b.bias(used)
        return used

    (layer,) = modules(network_of(built(recipe, shape=(4,))).graph, nn.Linear)
    assert layer.bias is None


def computed_operand(op: str, index: int) -> Recipe:
    """A layer whose input of that index is computed instead of constant."""

    def recipe(b: ModelBuilder) -> Tensor:
        weight = np.zeros((3, 4, 1, 1) if op == "Conv" else (4, 3))
        values: list[Any] = [b.input, b.constant(weight), b.constant(np.zeros(3))]
        values = values[: 2 if op == "MatMul" else 3]
        values[index] = b.node("Identity", [b.relu(b.input)], ())
        return b.node(op, values, (), "it")

    return recipe


def features(b: ModelBuilder) -> Tensor:
    """Rectified maps of shape (4, 4, 3)."""
    return b.relu(b.conv(b.input, 4))


REFUSED: dict[str, tuple[Recipe, tuple[int, ...], str]] = {
    "unknown": (lambda b: b.node("Sin", [b.input], MAP, "it"), MAP, "no core computes it; ReLU or ReLU6 would work"),
    "computed weight": (computed_operand("Conv", 1), MAP, "the weight and the bias must be constants"),
    "computed bias": (computed_operand("Conv", 2), MAP, "the weight and the bias must be constants"),
    "computed B": (computed_operand("Gemm", 1), (4,), "B and C must be constants"),
    "computed C": (computed_operand("Gemm", 2), (4,), "B and C must be constants"),
    "computed matrix": (computed_operand("MatMul", 1), (4,), "the second operand must be a constant"),
    "3-d conv": (
        lambda b: b.node("Conv", [b.input, b.constant(np.ones((2, 4, 3, 3, 3)))], (2, 4, 4, 4), "it"),
        (4, 6, 6, 6),
        r"only 1-d and 2-d convolutions are supported, the weight's shape is \(2, 4, 3, 3, 3\)",
    ),
    "negative pads": (
        lambda b: b.node("MaxPool", [b.input], (4, 4, 3), "it", kernel_shape=[2, 2], pads=[0, 0, -1, -1]),
        MAP,
        r"negative padding",
    ),
    "transA": (
        lambda b: b.node("Gemm", [b.input, b.constant(np.ones((1, 3)))], (3,), "it", transA=1),
        (4,),
        "transA = 1 is not supported",
    ),
    "3-d matrix": (
        lambda b: b.node("MatMul", [b.input, b.constant(np.ones((1, 4, 3)))], (1, 3), "it"),
        (4,),
        r"the second operand must be a matrix, its shape is \(1, 4, 3\)",
    ),
    "matmul of a map": (
        lambda b: b.node("MatMul", [b.input, b.constant(np.ones((5, 3)))], (4, 6, 3), "it"),
        MAP,
        r"its input must be a vector per sample, its shape is \(4, 6, 5\); flatten it first",
    ),
    "clip below zero": (
        lambda b: b.node("Clip", [b.input, b.constant(-1.0), b.constant(1.0)], MAP, "it"),
        MAP,
        r"bounds \[-1, 1\]; a lower bound of 0 and a positive or no upper bound would work",
    ),
    "clip without minimum": (
        lambda b: b.node("Clip", [b.input, "", b.constant(1.0)], MAP, "it"),
        MAP,
        r"bounds \[none, 1\]",
    ),
    "add of two shapes": (
        lambda b: b.node("Add", [b.input, b.global_pool(b.input)], MAP, "it"),
        MAP,
        r"both inputs must have one shape, they have \(4, 6, 5\) and \(4, 1, 1\)",
    ),
    "constant along the width": (
        lambda b: b.node("Add", [b.conv(b.input, 3, bias=False), b.constant([1, 2, 3])], (3, 4, 3), "it"),
        MAP,
        "its constant differs along the width; one value, or one per channel, would work",
    ),
    "constant along the height": (
        lambda b: b.node(
            "Add", [b.conv(b.input, 4, bias=False), b.constant(np.arange(4).reshape(4, 1))], (4, 4, 3), "it"
        ),
        MAP,
        "its constant differs along the height",
    ),
    "constant of many dimensions": (
        lambda b: b.node("Add", [b.input, b.constant(np.arange(120).reshape(MAP))], MAP, "it"),
        MAP,
        r"a constant of shape \(4, 6, 5\) that differs along 3 dimensions; one value, or one per channel, would work",
    ),
    "constant that enlarges": (
        lambda b: b.node("Mul", [b.global_pool(b.input), b.constant(np.ones((1, 6, 5)))], MAP, "it"),
        MAP,
        r"a constant of shape \(1, 6, 5\) meets \(4, 1, 1\) per sample",
    ),
    "product": (lambda b: b.node("Mul", [b.input, b.input], MAP, "it"), MAP, "a constant factor would work"),
    "quotient": (lambda b: b.node("Div", [b.constant(1.0), b.input], MAP, "it"), MAP, "a constant divisor would work"),
    "division by zero": (
        lambda b: b.node("Div", [b.input, b.constant(0.0)], MAP, "it"),
        MAP,
        "a constant that holds 0",
    ),
    "cast": (lambda b: b.node("Cast", [b.input], MAP, "it", to=10), MAP, "it makes float16 of the network's values"),
    "maximum of two tensors": (
        lambda b: b.node("Max", [b.input, b.input], MAP, "it"),
        MAP,
        "the bound of one tensor by a constant would work",
    ),
    "bound below": (
        lambda b: b.node("Max", [b.input, b.constant(1.0)], MAP, "it"),
        MAP,
        r"bounds \[1, none\]; a lower bound of 0",
    ),
    "sum of three": (lambda b: b.node("Sum", [b.input] * 3, MAP, "it"), MAP, "it adds 3 tensors; sums of two"),
    "padding with ones": (
        lambda b: b.node("Pad", [b.input, b.constant([0, 0, 1, 1] * 2, np.int64), b.constant(1.0)], (4, 8, 7), "it"),
        MAP,
        "it pads with 1; the chip pads with zeros",
    ),
    "reflection": (
        lambda b: b.node("Pad", [b.input, b.constant([0, 0, 1, 1] * 2, np.int64)], (4, 8, 7), "it", mode="reflect"),
        MAP,
        "mode 'reflect'; the chip pads with zeros",
    ),
    "cropping padding": (
        lambda b: b.node("Pad", [b.input, b.constant([0, 0, -1, 0] * 2, np.int64)], (4, 4, 5), "it"),
        MAP,
        "which crops where it is negative",
    ),
    "crop": (
        lambda b: b.node("Slice", [b.input, *(b.constant([v], np.int64) for v in (1, 5, 2))], (4, 4, 5), "it"),
        MAP,
        r"it takes \(4, 5\) rows and columns from \(1, 0\) on out of a larger map; .*every n-th row and column",
    ),
    "slice of channels": (
        lambda b: b.node("Slice", [b.input, *(b.constant([v], np.int64) for v in (0, 2, 1))], (2, 6, 5), "it"),
        MAP,
        r"it takes \[0:2:1, :, :\] of \(4, 6, 5\) per sample; no core splits a tensor",
    ),
    "average rounded up": (
        lambda b: b.node("AveragePool", [b.input], (4, 3, 3), "it", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        MAP,
        "whose divisor differs at the border; ceil_mode = 0 would work",
    ),
    "constant matrix first": (
        lambda b: b.node("MatMul", [b.constant(np.ones((3, 3))), b.input], (2,), "it"),
        (2,),
        "the second operand must be a constant; it is the first",
    ),
    "indices": (
        lambda b: (
            b.nodes.append(onnx.helper.make_node("MaxPool", ["x"], ["y", "i"], "it", kernel_shape=[2, 2]))
            or Tensor("y", (4, 5, 4))
        ),
        MAP,
        "the indices output is not supported",
    ),
    "dilated pooling": (
        lambda b: b.node("MaxPool", [b.input], (4, 4, 3), "it", kernel_shape=[2, 2], dilations=[2, 2]),
        MAP,
        "dilated pooling is not supported",
    ),
    "average that leaves out the padding": (
        lambda b: b.node("AveragePool", [b.input], MAP, "it", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        MAP,
        "padding with count_include_pad = 0, whose divisor differs at the border; count_include_pad = 1",
    ),
    "mean over channels": (
        lambda b: b.node("ReduceMean", [b.input], (1, 6, 5), "it", axes=[1]),
        MAP,
        r"axes \[1\]; supported is the mean over the two spatial dimensions",
    ),
    "flatten with the batch": (
        lambda b: b.node("Flatten", [b.input], (5,), "it", axis=3),
        MAP,
        "axis 3 joins samples; supported is 1",
    ),
    "reshape of the batch": (
        lambda b: b.node("Reshape", [b.input, b.constant([-1, 6, 5], np.int64)], (6, 5), "it"),
        MAP,
        r"target shape \[-1, 6, 5\], which makes 8 samples of 2; with the batch as it is",
    ),
    "reshape to a longer map": (
        lambda b: b.conv(b.node("Reshape", [features(b), b.constant([0, 4, 3, 4], np.int64)], (4, 3, 4), "it"), 1),
        MAP,
        r"it makes \(4, 3, 4\) of \(4, 4, 3\) per sample; a flatten to one dimension, here 48, would work",
    ),
    "transpose that nothing undoes": (
        lambda b: b.conv(b.node("Transpose", [features(b)], (3, 4, 4), "it", perm=[0, 3, 1, 2]), 1),
        MAP,
        r"it makes \(3, 4, 4\) of \(4, 4, 3\) per sample in another order: no core moves values",
    ),
    "transpose of the batch": (
        lambda b: b.node("Transpose", [b.input], (2, 6, 5), "it", perm=[1, 0, 2, 3]),
        MAP,
        r"perm \[1, 0, 2, 3\], which moves the samples",
    ),
    "squeeze of a longer axis": (
        lambda b: b.node("Squeeze", [b.input, b.constant([3], np.int64)], (4, 6), "it"),
        MAP,
        r"axes \[3\] of a tensor \(N, 4, 6, 5\); axes of size 1 would work",
    ),
    "softmax in the middle": (
        lambda b: b.relu(b.node("Softmax", [b.input], (4,), "it", axis=1)),
        (4,),
        "supported only as the last operator",
    ),
    "batch norm of computed statistics": (
        lambda b: b.node("BatchNormalization", [b.input, *[b.constant(np.ones(4))] * 3, b.relu(b.input)], MAP, "it"),
        MAP,
        "scale, bias, mean and variance must be constants",
    ),
    "dropout of a constant": (
        lambda b: b.node("Dropout", [b.constant(np.ones((1, 4)))], (4,), "it"),
        (4,),
        "is a constant; fold constants before the export",
    ),
}


@pytest.mark.parametrize(("recipe", "shape", "message"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_node_and_operator(recipe: Recipe, shape: tuple[int, ...], message: str) -> None:
    b = ModelBuilder(shape, seed=1)
    model = b.build(recipe(b), check=False)
    (operator,) = {n.op_type for n in model.graph.node if n.name == "it"}
    with pytest.raises(UnsupportedOperator, match=message) as caught:
        network_of(model)
    assert caught.value.detail.startswith(f"node 'it' ({operator}): ")
    assert caught.value.param == "it"


def test_layer_that_does_not_fit_its_input_names_both() -> None:
    b = ModelBuilder(MAP)
    wrong = b.node("Conv", [b.input, b.constant(np.ones((2, 3, 1, 1)))], (2, 6, 5), "wrong")
    with pytest.raises(
        InvalidModel, match=r"node 'wrong' \(Conv\) does not fit its input of shape \(4, 6, 5\) per sample"
    ):
        network_of(b.build(wrong, check=False))


def test_every_supported_operator_has_a_handler() -> None:
    assert HANDLERS.keys() == SUPPORTED_OPERATORS.keys()


def test_nodes_that_read_one_weight_stay_tied() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        kernel, matrix = b.constant(b.random.normal(size=(4, 4, 1, 1))), b.constant(np.diag([1, 2, 3, 4]))
        bias = b.constant(np.zeros(4))
        x = b.node("Conv", [b.input, kernel, bias], MAP, "conv")
        x = b.flatten(b.global_pool(b.node("Conv", [x, kernel, bias], MAP, "conv_again")))
        x = b.node("MatMul", [x, matrix], (4,), "product")
        x = b.node("Gemm", [x, matrix, bias], (4,), "gemm")
        x = b.node("Gemm", [x, matrix], (4,), "double", alpha=2.0)
        return b.node("Gemm", [x, matrix], (4,), "transpose", transB=1)

    model = built(recipe)
    network = network_of(model)
    conv, conv_again = modules(network.graph, Conv2d)
    product, gemm, double, transpose = modules(network.graph, nn.Linear)
    assert conv_again.weight is conv.weight
    assert conv_again.bias is not conv.bias
    assert gemm.weight is product.weight
    assert len({id(m.weight) for m in (product, double, transpose)}) == 3
    assert network.notes == [
        f"node {second!r} ({kind}) reads the weight of {first!r} again: both keep the same parameter"
        for second, kind, first in (("conv_again", "Conv", "conv"), ("gemm", "Gemm", "product"))
    ]
    x = np.random.default_rng(0).normal(size=(3, *MAP)).astype(np.float32)
    np.testing.assert_allclose(outputs(network.graph, x), run_onnx(model, x), rtol=1e-4, atol=1e-5)
