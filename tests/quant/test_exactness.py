"""The exact and the integer modules compute what the chip does: int64 arithmetic in plain numpy is the judge."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn

from dianaq.schemas.ranges import QRange
from dianaq_quant.modules.exact import (
    ExactAdd,
    ExactConv2d,
    ExactGlobalAvgPool2d,
    ExactInput,
    ExactLinear,
    ExactOutput,
    Requantisation,
)
from dianaq_quant.modules.integer import (
    IntegerAdd,
    IntegerConv2d,
    IntegerGlobalAvgPool2d,
    IntegerInput,
    IntegerLinear,
    IntegerOutput,
    Shift,
)
from dianaq_quant.modules.structure import Conv2d, Geometry, MaxPool2d

from .numpy_chip import convolution, shift_clip
from .support import integers, run_onnx

INT8 = QRange(bitwidth=8, signed=True)
RECTIFIED = QRange(bitwidth=7, signed=False)


def as_int(x: Tensor) -> np.ndarray:
    value = x.numpy()
    assert np.array_equal(value, np.floor(value))
    return value.astype(np.int64)


def weights_of(*shape: int, seed: int = 1) -> Tensor:
    return integers(*shape, seed=seed)


def exact_linear(weight: Tensor, bias: Tensor, shift: int, qrange: QRange) -> ExactLinear:
    """An exact layer whose integer weight and bias are the given ones (before the rounding constant)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    # An accumulator step of 1 makes the parameters their own integers.
    return ExactLinear(layer, INT8, Requantisation(1.0, 2.0**shift, shift, qrange)).eval()


GEOMETRIES = [
    Geometry((1, 1), (0, 0, 0, 0), (1, 1), 1),
    Geometry((2, 1), (1, 1, 1, 1), (1, 1), 1),
    Geometry((1, 2), (0, 1, 2, 0), (2, 1), 2),
    Geometry((1, 1), (1, 1, 1, 1), (1, 1), 4),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("shift", "qrange"), [(0, INT8), (9, INT8), (11, RECTIFIED)])
def test_convolution(geometry: Geometry, shift: int, qrange: QRange) -> None:
    x, weight = integers(3, 4, 7, 6), weights_of(8, 4 // geometry.groups, 3, 2)
    bias = integers(8, lo=-(2**20), hi=2**20, seed=2)
    expected = convolution(as_int(x), as_int(weight), as_int(bias), geometry)
    got = IntegerConv2d(weight, bias, Shift(shift, qrange), geometry)(x)
    assert np.array_equal(as_int(got), shift_clip(expected, shift, qrange.lo, qrange.hi))
    like = Conv2d(4, 8, (3, 2), geometry.stride, dilation=geometry.dilation, groups=geometry.groups, pads=geometry.pads)
    with torch.no_grad():
        like.weight.copy_(weight)
        like.bias.copy_(bias)
    exact = ExactConv2d(like, INT8, Requantisation(1.0, 2.0**shift, shift, qrange)).eval()
    rounding = 2 ** (shift - 1) if shift else 0
    assert np.array_equal(as_int(exact(x).detach()), shift_clip(expected + rounding, shift, qrange.lo, qrange.hi))


@given(st.integers(0, 31), st.integers(0, 2**31 - 1), st.booleans(), st.integers(1, 40))
def test_fully_connected_at_any_shift(shift: int, seed: int, rectified: bool, features: int) -> None:
    qrange = RECTIFIED if rectified else INT8
    x, weight = integers(9, features, seed=seed), weights_of(5, features, seed=seed + 1)
    # float32 holds these biases, as it holds those that the pipeline makes.
    bias = integers(5, lo=-(2**23), hi=2**23, seed=seed + 2)
    exact = exact_linear(weight, bias, shift, qrange)
    integer = IntegerLinear(exact.integer_weight().detach(), exact.integer_bias().detach(), Shift(shift, qrange))
    accumulator = as_int(x) @ as_int(weight).T + as_int(bias) + ((1 << shift) >> 1)
    expected = shift_clip(accumulator, shift, qrange.lo, qrange.hi)
    assert np.array_equal(as_int(exact(x).detach()), expected)
    assert np.array_equal(as_int(integer(x)), expected)


def test_accumulators_beyond_float32_are_exact() -> None:
    """Sums that float32 rounds: 2^24 + 1 is the first integer that it lacks."""
    features = 4096
    x, weight = torch.full((2, features), 127.0), torch.full((3, features), 127.0)
    x[1, 0], weight[2, 1] = 126, 125
    bias = torch.tensor([1.0, -1.0, 3.0])
    accumulator = as_int(x) @ as_int(weight).T + as_int(bias)
    assert accumulator.max() > 2**25
    assert not np.array_equal((x @ weight.T + bias).numpy().astype(np.int64), accumulator)
    # Clipping must not hide the difference: only the lowest bits are looked at.
    for shift, offset in ((19, 0), (19, -(int(accumulator.min()) // 2**19) * 2**19)):
        shifted = bias + offset
        exact = exact_linear(weight, shifted, shift, INT8)
        integer = IntegerLinear(exact.integer_weight().detach(), exact.integer_bias().detach(), Shift(shift, INT8))
        assert integer.dtype is torch.float64
        expected = shift_clip(accumulator + offset + 2 ** (shift - 1), shift, -128, 127)
        assert np.array_equal(as_int(exact(x).detach()), expected)
        assert np.array_equal(as_int(integer(x)), expected)


def test_the_lowest_bit_of_a_large_accumulator_decides() -> None:
    """The accumulator is one below and exactly at a multiple of 2^n, beyond 2^24."""
    x, weight = torch.full((1, 2048), 127.0), torch.full((2, 2048), 127.0)
    total = 2048 * 127 * 127
    shift = 18
    multiple = -(-total // 2**shift) * 2**shift
    bias = torch.tensor([multiple - total, multiple - total - 1.0])
    wanted = [[multiple >> shift, (multiple >> shift) - 1]]
    assert IntegerLinear(weight, bias, Shift(shift, INT8))(x).tolist() == wanted
    exact = exact_linear(weight, bias - 2 ** (shift - 1), shift, INT8)
    assert torch.equal(exact.integer_bias(), bias)
    assert exact(x).tolist() == wanted


def test_bound_is_the_largest_accumulator_of_any_input() -> None:
    layer = IntegerLinear(torch.tensor([[3.0, -4.0], [1.0, 1.0]]), torch.tensor([-5.0, 600.0]), Shift(0, INT8))
    assert layer.bound == max(128 * 7 + 5, 128 * 2 + 600)
    assert layer.dtype is torch.float32


@pytest.mark.parametrize("shift", [0, 1, 3, 31])
@pytest.mark.parametrize("qrange", [INT8, RECTIFIED], ids=["signed", "rectified"])
def test_addition(shift: int, qrange: QRange) -> None:
    a, b = integers(4, 50, seed=1), integers(4, 50, seed=2)
    expected = shift_clip(as_int(a) + as_int(b), shift, qrange.lo, qrange.hi)
    assert np.array_equal(as_int(IntegerAdd(Shift(shift, qrange))(a, b)), expected)
    assert np.array_equal(as_int(ExactAdd(Requantisation(1.0, 2.0**shift, shift, qrange))(a, b)), expected)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 0, 1)])
def test_max_pool_of_negative_values_ignores_its_padding(pads: tuple[int, int, int, int]) -> None:
    x = integers(2, 3, 5, 6, lo=-128, hi=-1)
    y = as_int(MaxPool2d((2, 2), (2, 1), pads)(x))
    padded = np.pad(as_int(x), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=-(10**6))
    rows, columns = (padded.shape[2] - 2) // 2 + 1, padded.shape[3] - 1
    assert y.shape == (2, 3, rows, columns)
    for r in range(rows):
        for c in range(columns):
            assert np.array_equal(y[:, :, r, c], padded[:, :, 2 * r : 2 * r + 2, c : c + 2].max((2, 3)))


def maps_of_every_sum(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One channel for every sum that a map of [0, 127] can have within 1 of a multiple of its size; and the sums."""
    size = height * width
    sums = np.unique([s for k in range(128) for s in (k * size - 1, k * size, k * size + 1) if 0 <= s <= 127 * size])
    x = np.zeros((1, len(sums), size), np.float32)
    for channel, total in enumerate(sums):
        full, rest = divmod(int(total), 127)
        x[0, channel, :full] = 127
        if full < size:
            x[0, channel, full] = rest
    return x.reshape(1, len(sums), height, width), sums


# 55 and 82 are such that float32 takes n * (1 / n) for less than 1.
SIZES = [(7, 7), (5, 3), (3, 3), (8, 8), (1, 1), (25, 5), (13, 11), (11, 5), (2, 41)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_floor_of_a_mean_is_that_of_integers(size: tuple[int, int]) -> None:
    """A float32 mean just below an integer must not become it, nor one that is an integer fall below."""
    x, sums = maps_of_every_sum(*size)
    assert np.array_equal(x.astype(np.int64).sum((0, 2, 3)), sums)
    expected = sums // (size[0] * size[1])
    for module in (ExactGlobalAvgPool2d(RECTIFIED), IntegerGlobalAvgPool2d(RECTIFIED)):
        assert np.array_equal(as_int(module(torch.from_numpy(x))).ravel(), expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_floor_of_a_mean_in_onnxruntime(size: tuple[int, int]) -> None:
    x, sums = maps_of_every_sum(*size)
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Floor", ["m"], ["y"])]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, len(sums), *shape])]
        for name, shape in (("x", size), ("y", (1, 1)))
    ]
    graph = helper.make_graph(nodes, "mean", *ends)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert np.array_equal(run_onnx(model, x).ravel().astype(np.int64), sums // (size[0] * size[1]))


@given(st.floats(2**-10, 2**10, width=32), st.integers(0, 2**31 - 1))
def test_input_is_floored_and_clipped(scale: float, seed: int) -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(seed)) * 60 * scale
    got = IntegerInput(scale, INT8)(x)
    expected = np.clip(np.floor(x.numpy() / np.float32(scale)), -128, 127)
    assert np.array_equal(got.numpy(), expected)
    assert torch.equal(ExactInput(scale, INT8)(x), got)


def test_output_is_scaled_exactly() -> None:
    x = torch.arange(-128.0, 128.0)
    for exponent in (-20, 0, 9):
        expected = x * 2.0**exponent
        assert torch.equal(IntegerOutput(2.0**exponent)(x), expected)
        assert torch.equal(ExactOutput(2.0**exponent)(x), expected)


def test_requantisation_knows_its_scales() -> None:
    requantise = Requantisation(0.5, 4.0, 3, INT8)
    assert (requantise.accumulator_scale, requantise.weight_scale, requantise.half) == (0.5, 1.0, 4)
    assert Requantisation(0.5, 4.0, 0, INT8).half == 0


def test_exact_layer_rounds_weights_and_biases_to_the_nearest_step() -> None:
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.24, -0.26, 100.0]]))
        layer.bias.fill_(0.3)
    exact = ExactLinear(layer, INT8, Requantisation(1.0, 1.0, 1, INT8))
    assert exact.integer_weight().tolist() == [[0, -1, 127]]  # steps of 1/2, clipped
    assert exact.integer_bias().tolist() == [1 + 1]  # 0.6 steps, and half of 2^1
