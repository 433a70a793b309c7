"""Exported networks in numpy's integers: as onnxruntime computes them, exactly beyond what it holds, or refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from dianaq.errors import AccumulatorOverflow, InvalidDataset, InvalidModel, UnsupportedOperator
from dianaq.executor import IntegerModel, arithmetic, read_model
from dianaq.executor.model import BATCH

from .integer_files import FileBuilder, floats, integers, run_onnx, small_htvm

MAP = (4, 6, 5)


def one(op: str, *operands: Any, shape: tuple[int, ...] = MAP, opset: int = 13, **attributes: Any) -> onnx.ModelProto:
    """A model of one operator on the input."""
    b = FileBuilder(shape, opset)
    b.add(op, ["input", *operands], "y", **attributes)
    return b.model()


def same_as_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Whether a model without a quantiser gives what onnxruntime does; the integers."""
    (expected,) = run_onnx(model, x)
    found = read_model(model).run(x)
    assert found.logits.dtype == np.int32
    assert np.array_equal(found.output, expected)
    return found.logits


AFTER_MEAN = {"AveragePool", "GlobalAveragePool"}

OPERATORS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "max pool, padded": ("MaxPool", (), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    "max pool": ("MaxPool", (), {"kernel_shape": [2, 2]}),
    "average pool": ("AveragePool", (), {"kernel_shape": [3, 2], "strides": [2, 2]}),
    "average pool, padded": (
        "AveragePool",
        (),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 0], "count_include_pad": 1},
    ),
    "mean": ("GlobalAveragePool", (), {}),
    "multiply by channel": ("Mul", (floats(4, 1, 1),), {}),
    "multiply by one": ("Mul", (np.float32(1),), {}),
    "add to channel": ("Add", (floats(1, 4, 1, 1),), {}),
    "max": ("Max", ([-3.0],), {}),
    "bounds beyond 32 bits": ("Clip", (np.float32(-1e30), np.float32(2.0**40)), {}),
    "min": ("Min", (np.float32(9),), {}),
    "clip by inputs": ("Clip", (np.float32(-7), np.float32(40)), {}),
    "clip from below": ("Clip", (np.float32(-7),), {}),
    "slice": ("Slice", (np.array([1, 0]), np.array([3, 2**63 - 1]), np.array([1, -1]), np.array([1, 2])), {}),
    "slice with the batch": ("Slice", (np.array([0, 1]), np.array([1, 3])), {}),
    "pad": ("Pad", (np.array([0, 1, 2, 0, 0, 0, 1, 3]),), {"mode": "constant"}),
    "pad with a value": ("Pad", (np.array([0, 0, 0, 1, 0, 0, 0, 0]), np.float32(-5)), {}),
    "pad that cuts": ("Pad", (np.array([0, 0, -1, 0, 0, -1, 0, -2]),), {}),
    "flatten": ("Flatten", (), {"axis": 1}),
    "reshape": ("Reshape", (np.array([1, 2, 2, -1]),), {}),
    "reshape that copies": ("Reshape", (np.array([0, 0, 30]),), {}),
    "unsqueeze": ("Unsqueeze", (np.array([1, -1]),), {}),
    "sum": ("ReduceSum", (np.array([1]),), {"keepdims": 0}),
    "sum of a map": ("ReduceSum", (np.array([2, 3]),), {}),
    "identity": ("Identity", (), {}),
    "cast": ("Cast", (), {"to": TensorProto.FLOAT}),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str) -> None:
    op, operands, attributes = OPERATORS[name]
    b = FileBuilder(MAP)
    y = b.add(op, ["input", *operands], "y", **attributes)
    if op in AFTER_MEAN:
        b.add("Floor", [y])
    found = same_as_onnxruntime(b.model(), integers(2 * BATCH + 1, *MAP))
    assert len(np.unique(found)) > 5


def test_operators_of_older_opsets_have_attributes_instead_of_inputs() -> None:
    x = integers(3, *MAP)
    for op, opset, attributes in (
        ("Clip", 10, {"min": -5.0, "max": 30.0}),
        ("Pad", 10, {"pads": [0, 0, 1, 0, 0, 0, 0, 2]}),
        ("Slice", 9, {"starts": [1], "ends": [3], "axes": [2]}),
        ("ReduceSum", 10, {"axes": [1], "keepdims": 0}),
        ("Unsqueeze", 10, {"axes": [2]}),
    ):
        same_as_onnxruntime(one(op, opset=opset, **attributes), x)
    same_as_onnxruntime(one("Squeeze", opset=10, shape=(4, 1, 1), axes=[2, 3]), integers(3, 4, 1, 1))
    same_as_onnxruntime(one("Squeeze", np.array([3]), shape=(4, 1, 1)), integers(3, 4, 1, 1))


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_convolution(data: st.DataObject) -> None:
    def number(lo: int, hi: int) -> int:
        return data.draw(st.integers(lo, hi))

    groups = number(1, 3)
    inputs, outputs, kernel = groups * number(1, 3), groups * number(1, 3), [number(1, 3), number(1, 3)]
    shape = (inputs, number(5, 8), number(5, 8))
    weight = floats(outputs, inputs // groups, *kernel, seed=number(0, 99))
    operands = [weight, floats(outputs, lo=-3000, hi=3000)] if number(0, 1) else [weight]
    model = one(
        "Conv",
        *operands,
        shape=shape,
        group=groups,
        strides=[number(1, 2), number(1, 3)],
        pads=[number(0, k - 1) for k in kernel * 2],
        dilations=[number(1, 2), number(1, 2)],
    )
    same_as_onnxruntime(model, integers(5, *shape, seed=number(0, 99)))


def test_a_large_batch_is_unfolded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = integers(11, *MAP), one("Conv", floats(6, 4, 3, 3))
    whole = read_model(model).run(x).logits
    monkeypatch.setattr(arithmetic, "MAX_COLUMN_VALUES", 4 * 9 * 12 * 3)  # three samples at a time
    assert np.array_equal(read_model(model).run(x).logits, whole)
    monkeypatch.setattr(arithmetic, "MAX_COLUMN_VALUES", 1)
    assert np.array_equal(read_model(model).run(x).logits, whole)


@pytest.mark.parametrize("transposed", [0, 1])
def test_fully_connected(transposed: int) -> None:
    weight = floats(6, 6)
    x = integers(9, 6)
    bias = floats(6, lo=-5000, hi=5000)
    found = same_as_onnxruntime(one("Gemm", weight, bias, shape=(6,), transB=transposed), x)
    expected = x @ (weight.T if transposed else weight).astype(int) + bias.astype(int)
    assert np.array_equal(found, expected)
    b = FileBuilder((6,))
    b.add("Add", [b.add("MatMul", ["input", weight]), bias])
    assert np.array_equal(same_as_onnxruntime(b.model(), x), x @ weight.astype(int) + bias.astype(int))


@pytest.mark.parametrize("shift", [0, 1, 9, 31])
def test_division_and_floor_shift(shift: int) -> None:
    b = FileBuilder((5,))
    x = b.add("Mul", ["input", [2.0**16]])
    b.add("Floor", [b.add("Div", [x, [2.0**shift]])])
    x = integers(40, 5)
    assert np.array_equal(same_as_onnxruntime(b.model(), x), (x.astype(np.int64) << 16) >> shift)


def test_a_mean_of_negative_values_is_rounded_down_even_through_a_flatten() -> None:
    b = FileBuilder((3, 2, 2))
    b.add("Floor", [b.add("Flatten", [b.add("GlobalAveragePool", ["input"])])])
    x = np.array([-1, -1, -1, 0, 0, 0, 0, -1, 5, 5, 5, 4]).reshape(1, 3, 2, 2)
    assert read_model(b.model()).run(x).logits.tolist() == [[-1, -1, 4]]


def test_sums_beyond_float32_are_exact() -> None:
    """2^24 + 1 is the first integer that float32 lacks; onnxruntime rounds it."""
    model = one("Gemm", np.full((1, 4096), 127.0), [1.0], shape=(4096,), transB=1)
    x = np.full((2, 4096), 127)
    x[1, 0] = 126
    assert read_model(model).run(x).logits.ravel().tolist() == [127 * 127 * 4096 + 1, 127 * (127 * 4096 - 1) + 1]


def test_only_the_sum_counts_and_not_its_parts() -> None:
    """Parts beyond 32 bits that cancel, as they do in the chip's accumulator, which wraps."""
    big = 2.0**30
    model = one("Gemm", [[big, big, -big, -big]], [7.0], shape=(4,), transB=1)
    assert read_model(model).run(np.array([[3, 3, 3, 3]])).logits.tolist() == [[7]]


def test_a_whole_network_and_all_its_tensors() -> None:
    model = small_htvm().model()
    x = np.random.default_rng(0).normal(0, 20, (2 * BATCH + 3, 3, 6, 6)).astype(np.float32)
    found = read_model(model).run(x)
    names = list(found.tensors)
    assert "stem/div" not in names  # a fraction
    assert "mean/mean" not in names
    assert "output" not in names  # real
    assert {"input/floor", "stem/conv", "stem/min", "join/relu", "mean/flat", "head/min"} - set(names) == {"mean/flat"}
    expected = run_onnx(model, x, [*names, "output"])
    for name, value in zip(names, expected, strict=False):
        assert found.tensors[name].dtype == np.int32
        assert np.array_equal(found.tensors[name], value), name
    assert np.array_equal(found.output, expected[-1])
    assert found.output.dtype == np.float32
    assert (found.scale, found.logits.tolist()) == (1 / 8, (found.output * 8).tolist())
    assert len(np.unique(found.logits)) > 20


def test_only_the_tensors_asked_for_are_kept() -> None:
    found = read_model(small_htvm().model()).run(np.zeros((3, 6, 6)), keep=["stem/min"])
    assert list(found.tensors) == ["stem/min"]
    assert found.logits.shape == (1, 5)


def test_a_float_input_is_divided_in_float32_as_onnxruntime_does() -> None:
    """A scale with no exact float32, and inputs at the edges of its bins."""
    scale = 0.1
    model = small_htvm(scale=scale).model()
    edges = np.arange(-120, 120).astype(np.float32) * np.float32(scale)
    x = np.resize(np.concatenate([edges, np.nextafter(edges, np.float32(-9))]), (5, 3, 6, 6)).astype(np.float32)
    (expected,) = run_onnx(model, x, ["input/min"])
    assert np.array_equal(read_model(model).run(x).tensors["input/min"], expected)
    # In float64 some of them are in the bin below.
    assert not np.array_equal(np.floor(x.astype(np.float64) / scale), expected)


def test_inputs_beyond_32_bits_saturate_where_they_are_clipped() -> None:
    model = read_model(small_htvm().model())
    x = np.full((1, 3, 6, 6), 1e30)
    x[0, 0] = -np.inf
    assert np.unique(model.run(x).tensors["input/min"]).tolist() == [-128, 127]
    with pytest.raises(InvalidDataset, match="NaN"):
        model.run(np.full((3, 6, 6), np.nan))
    b = FileBuilder((2,))
    b.add("Add", [b.add("Floor", ["input"]), [1.0]])
    assert read_model(b.model()).run(np.array([2.5, -0.5])).logits.tolist() == [[3, 0]]
    with pytest.raises(InvalidDataset, match="beyond 32 bits when divided by 1, and is not clipped"):
        read_model(b.model()).run(np.array([3e9, 0]))


def test_quantised_input_passes_the_quantiser_by() -> None:
    model = read_model(small_htvm().model())
    x = integers(4, 3, 6, 6)
    assert np.array_equal(model.run(x, quantised=True).logits, model.run(x * 0.25).logits)
    assert not np.array_equal(model.run(x, quantised=True).logits, model.run(x).logits)  # integers are divided as well


def test_a_network_that_ends_in_integers_gives_them() -> None:
    b = FileBuilder((4,))
    y = b.requantise(b.add("Gemm", ["input", floats(6, 4), floats(6)], transB=1), "fc", 6)
    y = b.add("Slice", [y, np.array([0]), np.array([5]), np.array([1])])  # padding cut off
    b.add("Cast", [y], to=TensorProto.INT8)
    found = read_model(b.model(TensorProto.INT8)).run(integers(7, 4))
    assert (found.scale, found.output.dtype, found.output.shape) == (1.0, np.int32, (7, 5))
    assert np.array_equal(found.output, run_onnx(b.model(TensorProto.INT8), integers(7, 4))[0])


def test_an_output_may_be_cut_behind_its_division() -> None:
    b = FileBuilder((4,))
    y = b.add("Div", [b.add("Max", ["input", [0.0]]), [3.0]])  # any constant there
    b.add("Slice", [y, np.array([0]), np.array([3]), np.array([1])])
    found = same_as_onnxruntime_real(read_model(b.model()), b.model(), integers(7, 4))
    assert found.shape == (7, 3)


def same_as_onnxruntime_real(model: IntegerModel, proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    found = model.run(x)
    assert np.array_equal(found.output, run_onnx(proto, x)[0])
    assert found.scale == pytest.approx(1 / 3)
    return found.logits


def overflowing(kind: str) -> onnx.ModelProto:
    b = FileBuilder((4, 3, 3))
    many = floats(4, 4, 1, 1, lo=1)
    if kind == "bias":
        b.add("Conv", ["input", many, [0.0, 2.0**31 - 128, 0.0, 0.0]], "deep/conv")
    elif kind == "weights":
        b.add("Conv", ["input", many * 2.0**18, [0.0] * 4], "deep/conv")
    elif kind == "no bound":
        b.add("Mul", ["input", [2.0**24]], "before")
        b.add("Conv", ["before", np.full((4, 4, 1, 1), 2.0**30)], "deep/conv")
    elif kind == "fully connected":
        b.add("Gemm", [b.add("Flatten", ["input"]), np.full((2, 36), -(2.0**24)), [0.0, 0.0]], "deep/conv", transB=1)
    elif kind == "addition":
        y = b.add("Mul", ["input", [2.0**23]])
        b.add("Add", [b.add("Add", [y, y]), y], "deep/conv")
    elif kind == "k":
        b.add("Mul", ["input", floats(4, 1, 1) * 2.0**19], "deep/conv")
    elif kind == "l":
        b.add("Add", [b.add("Mul", ["input", [2.0**23]]), [2.0**31 - 2**28]], "deep/conv")
    elif kind == "mean":
        b.add("Floor", [b.add("GlobalAveragePool", [b.add("Mul", ["input", [2.0**24]])], "deep/conv")])
    else:
        b.add("ReduceSum", [b.add("Mul", ["input", [2.0**24]]), np.array([1])], "deep/conv")
    return b.model()


@pytest.mark.parametrize(
    "kind", ["bias", "weights", "no bound", "fully connected", "addition", "k", "l", "mean", "sum"]
)
def test_a_sum_beyond_32_bits_is_refused_by_the_name_of_its_layer(kind: str) -> None:
    x = np.full((3, 4, 3, 3), 100)
    x[0] = 0
    with pytest.raises(AccumulatorOverflow, match=r"^deep/conv \(.*\) reaches .*, beyond the 32 bits") as caught:
        read_model(overflowing(kind)).run(x)
    assert caught.value.param == "deep/conv"
    if kind != "no bound":
        assert "(in sample 1)" in caught.value.detail


def test_the_largest_accumulators_are_accepted() -> None:
    model = one("Gemm", [[1.0, 0.0], [0.0, -1.0]], [2.0**31 - 128, -(2.0**31) + 128], shape=(2,), transB=1)
    x = np.array([[127, 128]])
    assert read_model(model).run(x).logits.tolist() == [[2**31 - 1, -(2**31)]]
    with pytest.raises(AccumulatorOverflow, match="reaches -2,147,483,649"):
        read_model(model).run(x + 1)


REFUSALS: dict[str, tuple[onnx.ModelProto, str]] = {
    "weights": (one("Conv", floats(4, 4, 1, 1) + 0.5), "holds .*5; accepted are integers"),
    "bias": (one("Conv", floats(4, 4, 1, 1), [0.0, 0.25, 0.0, 0.0]), "holds 0.25; accepted are integers"),
    "huge weights": (one("Conv", np.full((4, 4, 1, 1), 1e12)), "beyond 32 bits"),
    "infinite weights": (one("Mul", np.float32(np.inf)), "holds inf"),
    "factor": (one("Mul", np.float32(1.5)), "holds 1.5"),
    "clip bound": (one("Clip", np.float32(0), np.float32(6.5)), "holds 6.5"),
    "clip attribute": (one("Clip", opset=10, min=0.0, max=6.5), "max = 6.5; accepted are integers"),
    "convolution padding": (one("Conv", floats(4, 4, 3, 3), auto_pad="SAME_UPPER"), "auto_pad = SAME_UPPER"),
    "groups": (one("Conv", floats(4, 2, 1, 1), group=1), r"weights of shape \(4, 2, 1, 1\) in 1 groups"),
    "convolution bias": (one("Conv", floats(4, 4, 1, 1), floats(3)), "bias of 3 values for 4 outputs"),
    "large kernel": (one("Conv", floats(4, 4, 9, 1)), "do not go together"),
    "unlike shapes": (one("Add", floats(3, 1, 1)), "do not go together"),
    "1-D convolution": (one("Conv", floats(4, 4, 3)), "accepted are those of 2-D"),
    "alpha": (one("Gemm", floats(4, 4), shape=(4,), alpha=0.5), "alpha = 0.5; accepted is 1"),
    "gemm shape": (one("Gemm", floats(5, 4), shape=(4,)), "multiplies"),
    "gemm bias": (one("Gemm", floats(4, 4), floats(3), shape=(4,)), "bias of 3 values for 4 outputs"),
    "average pool padding": (one("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]), "count_include_pad"),
    "ceil": (one("MaxPool", kernel_shape=[2, 2], ceil_mode=1), "ceil_mode = 1"),
    "two constants": (one("Max", [1.0], [2.0]), "one computed tensor and one constant"),
    "batch sum": (one("ReduceSum", np.array([0])), "sums over the batch"),
    "batch reshape": (one("Reshape", np.array([4, 30])), r"makes \[4, 30\]"),
    "batch cut": (one("Slice", np.array([-1]), np.array([9])), "cuts the batch"),
    "backwards": (one("Slice", np.array([3]), np.array([0]), np.array([1]), np.array([-1])), "step -1"),
    "reflection": (one("Pad", np.array([0, 0, 1, 0, 0, 0, 0, 0]), mode="reflect"), "mode = reflect"),
    "batch padding": (one("Pad", np.array([1, 0, 0, 0, 0, 0, 0, 0])), "0 for the batch"),
    "batch constant": (one("Add", floats(2, 4, 6, 5)), "does not broadcast over the batch"),
    "wrapping cast": (one("Cast", to=TensorProto.UINT8), r"to a type of \[0, 255\]"),
    "boolean": (one("Cast", to=TensorProto.BOOL), "casts to BOOL"),
    "vector pooled": (one("MaxPool", shape=(9,), kernel_shape=[2, 2]), "accepted are maps"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_integers_is_refused_by_node_with_what_could(name: str) -> None:
    model, words = REFUSALS[name]
    reader = read_model(model)
    with pytest.raises(InvalidModel, match=rf"node 'y' \(.*{words}") as caught:
        reader.run(integers(2, *reader.input_shape))
    assert caught.value.param == "y"


@pytest.mark.parametrize("divisor", [3.0, 0.0, -2.0, 2.0**32, 0.5])
def test_a_division_between_the_ends_is_by_a_power_of_two(divisor: float) -> None:
    b = FileBuilder((4,))
    y = b.add("Div", [b.add("Max", ["input", [0.0]]), [divisor]], "bad")
    b.add("Min", [b.add("Floor", [y]), [127.0]])
    with pytest.raises(InvalidModel, match=r"node 'bad' \(Div\)") as caught:
        read_model(b.model()).run(integers(2, 4))
    assert caught.value.param == "bad"


def test_a_division_by_several_constants_is_refused() -> None:
    b = FileBuilder((4,))
    y = b.add("Div", [b.add("Max", ["input", [0.0]]), [2.0, 4.0, 8.0, 2.0]], "bad")
    b.add("Min", [b.add("Floor", [y]), [127.0]])
    with pytest.raises(
        InvalidModel, match=r"node 'bad' \(Div\) has a constant of shape \(4,\); accepted is one element"
    ):
        read_model(b.model()).run(integers(2, 4))


def test_a_missing_floor_is_named_with_its_division() -> None:
    b = FileBuilder((4,))
    y = b.add("Div", [b.add("Max", ["input", [0.0]]), [8.0]], "quotient")
    b.add("Min", [y, [127.0]], "next")
    with pytest.raises(
        InvalidModel, match=r"node 'next' \(Min\) reads 'quotient', which 'quotient' divides by 8 and no"
    ):
        read_model(b.model()).run(integers(2, 4))
    b = FileBuilder((4, 2, 2))
    b.add("Min", [b.add("GlobalAveragePool", ["input"], "mean"), [9.0]], "next")
    with pytest.raises(InvalidModel, match="'mean' divides by 4 and no Floor"):
        read_model(b.model()).run(integers(2, 4, 2, 2))
    with pytest.raises(InvalidModel, match="the output 'y' is a mean that 'y' makes, and no Floor follows"):
        read_model(one("GlobalAveragePool")).run(integers(2, *MAP))


def test_both_ends_divide_by_one_positive_constant() -> None:
    for build, words in (
        (lambda b: b.add("Floor", [b.add("Div", ["input", [0.1, 0.2]], "d")]), r"divides by \[0.1 0.2\]"),
        (lambda b: b.add("Floor", [b.add("Div", ["input", [-1.0]], "d")]), r"divides by \[-1.\]"),
        (lambda b: b.add("Max", [b.add("Div", ["input", [2.0]], "d"), [0.0]]), "no Floor follows"),
        (lambda b: b.add("Div", [b.add("Max", ["input", [0.0]]), "input"], "d"), "divides by no constant"),
    ):
        b = FileBuilder((2,))
        build(b)
        with pytest.raises(InvalidModel, match=words) as caught:
            read_model(b.model())
        assert caught.value.param == "d"


def test_unknown_operators_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnsupportedOperator, match=r"node 'y': ONNX operator Sigmoid .* known are Conv, Gemm") as caught:
        read_model(one("Sigmoid"))
    assert caught.value.param == "y"
    with pytest.raises(UnsupportedOperator, match=r"node 'y': com.acme operator Conv"):
        read_model(one("Conv", floats(4, 4, 1, 1), domain="com.acme"))


def test_graphs_of_other_ends_are_refused() -> None:
    model = small_htvm().model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(InvalidModel, match=r"has the shape \[2, 3, 6, 6\]; accepted is \(1, ...\)"):
        read_model(model)
    model = small_htvm().model()
    model.graph.output.append(onnx.ValueInfoProto(name="stem/min"))
    with pytest.raises(InvalidModel, match="1 inputs and 2 outputs"):
        read_model(model)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 3, 6, 5)), r"shape \[2, 3, 6, 5\]; accepted is \[N, 4, 6, 5\]"),
        (np.zeros((0, *MAP)), "accepted is"),
        (np.zeros(MAP, bool), "of type bool"),
        (np.full(MAP, 0.5), "holds 0.5, and integers are needed"),
        (np.full(MAP, np.nan), "holds nan"),
        (np.full(MAP, 2**31), "beyond 32 bits"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidDataset, match=words):
        read_model(one("Max", [0.0])).run(x)


def test_one_sample_may_come_without_a_batch_or_flat() -> None:
    model, x = read_model(one("Max", [0.0])), integers(*MAP)
    for form in (x, x[None], x.ravel(), x.astype(np.int8), x.astype(np.float64)):
        assert np.array_equal(model.run(form).logits, np.maximum(x, 0)[None])


def test_analog_layers_of_dorys_dialect_are_run_as_written_and_noted() -> None:
    b = FileBuilder(MAP, opset=10, input="0")
    y = b.add("Conv", ["0", floats(3, 4, 1, 1, lo=-1, hi=1)], "1", weight_bits=2)
    y = b.add("Add", [b.add("Mul", [y, floats(3, 1, 1)], "2"), floats(3, 1, 1)], "3")
    y = b.add("Floor", [b.add("Div", [y, np.float32(64)], "4")], "5")
    b.add("Clip", [y], "6", min=0.0, max=127.0, out_bits=8)
    model = read_model(b.model())
    assert model.quantiser is None
    (note,) = model.notes
    assert note.startswith("1: weight_bits = 2 selects the analog core")
    found = model.run(integers(3, *MAP))
    assert list(found.tensors) == ["0", "1", "2", "3", "5", "6"]
    assert np.array_equal(found.logits, np.clip(found.tensors["3"] >> 6, 0, 127))
    assert read_model(small_htvm().model()).notes == ()


@pytest.mark.parametrize("module", ["arithmetic", "elementwise", "layers", "shapes"])
def test_nothing_between_the_ends_is_a_floating_point_number(module: str) -> None:
    """No division but that of integers, no float constant, no float type."""
    source = Path(arithmetic.__file__).with_name(f"{module}.py").read_text()
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Div)
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        assert name not in ("float", "float16", "float32", "float64", "floating")
