"""Analog layers, real-valued, exact and in integers: values by hand, int64 arithmetic in plain numpy as the judge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dianaq.errors import QuantisationError
from dianaq.schemas.quantisers import QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors.hardware.analog_shift import choose_analog_shift
from dianaq_quant.editors.hardware.fold_batch_norm import FoldBatchNorm
from dianaq_quant.editors.integerise.integerise import Integerise
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.surgery import calls
from dianaq_quant.modules.adc import RowTiles
from dianaq_quant.modules.exact import ExactAnalogConv2d, Requantisation, analog_affine, largest_magnitude
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, fake_analog_conv, fake_linear_op
from dianaq_quant.modules.integer import IntegerAnalogConv2d, Shift
from dianaq_quant.modules.quantiser import Scale, WeightQuantiser
from dianaq_quant.modules.structure import Conv2d, Geometry
from dianaq_quant.targets.diana import INT8, RECTIFIED, TERNARY

from .numpy_chip import conversions, shift_clip
from .support import integers

ANALOG = QuantiserSpec(range=TERNARY, function="ternary", granularity="per-outchannel_weights")
PLAIN = Geometry((1, 1), (0, 0, 0, 0), (1, 1), 1)


def analog(
    weight: Tensor, scales: Tensor, input_scale: float, gain: float, geometry: Geometry = PLAIN
) -> FakeAnalogConv2d:
    """An analog layer of the given latent weights and weight scales."""
    kernel = (weight.shape[2], weight.shape[3])
    conv = Conv2d(
        weight.shape[1],
        len(weight),
        kernel,
        geometry.stride,
        dilation=geometry.dilation,
        bias=False,
        pads=geometry.pads,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
    fake = fake_linear_op(conv, WeightQuantiser(QuantiserSpec()))
    assert isinstance(fake, FakeConv2d)
    quantiser, scale = WeightQuantiser(ANALOG), Scale()
    quantiser.scale.set(scales.reshape(-1, 1, 1, 1))
    scale.set(input_scale)
    layer = fake_analog_conv(fake, quantiser, scale)
    layer.adc.gain.fill_(gain)
    return layer


def as_int(x: Tensor) -> np.ndarray:
    value = x.detach().numpy()
    assert np.array_equal(value, np.floor(value))
    return value.astype(np.int64)


def test_a_conversion_stands_for_the_middle_of_its_bin() -> None:
    """`y = (a + T/2) g s_x s_w`: 7 ones of 0.5 sum to 7 steps, 7 // 4 = 1, and (1 + 1/2) * 4 * 0.5 * s_w."""
    layer = analog(torch.ones(2, 7, 1, 1), torch.tensor([1.0, 0.25]), 0.5, 4.0)
    y = layer(torch.full((1, 7, 1, 1), 0.5))
    assert y.flatten().tolist() == [1.5 * 4 * 0.5 * 1.0, 1.5 * 4 * 0.5 * 0.25]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_the_real_valued_layer_is_what_its_formula_says(count: int, slope: bool, bias: bool) -> None:
    scales = torch.tensor([0.5, 1.0, 2.0, 0.75])
    weight = integers(4, 6, 3, 3, lo=-1, hi=1, seed=1) * scales.reshape(-1, 1, 1, 1)
    geometry = Geometry((2, 1), (1, 1, 1, 1), (1, 1), 1)
    layer = analog(weight, scales, 0.25, 4.0, geometry)
    layer.tiles = RowTiles(count, 6 // count)
    per_channel = scales * 0.25 * 4.0
    offset = torch.zeros(4)
    if slope:
        layer.slope = torch.tensor([1.0, -2.0, 0.5, 3.0])
        per_channel = per_channel * layer.slope
    if bias:
        offset = torch.tensor([0.1, -5.0, 0.0, 2.0])
        layer.bias = nn.Parameter(offset)
    x = integers(2, 6, 5, 5, lo=-63, hi=63)
    size = 6 // count
    ternary = as_int(weight / scales.reshape(-1, 1, 1, 1))
    a = sum(conversions(as_int(x)[:, i : i + size], ternary[:, i : i + size], 4, geometry) for i in range(0, 6, size))
    expected = (torch.from_numpy(a) + count / 2) * per_channel.reshape(1, -1, 1, 1) + offset.reshape(1, -1, 1, 1)
    torch.testing.assert_close(layer(x * 0.25).detach(), expected.float(), rtol=1e-5, atol=1e-5)


def test_gradients_reach_weights_scales_and_the_input() -> None:
    layer = analog(torch.randn(3, 4, 3, 3), torch.ones(3), 0.25, 2.0)
    x = (integers(1, 4, 5, 5, lo=-10, hi=10) / 4).requires_grad_()
    layer(x).square().sum().backward()
    for gradient in (layer.weight.grad, layer.quantiser.scale.value.grad, x.grad):
        assert gradient is not None
        assert float(gradient.abs().sum()) > 0


def test_a_batch_norm_after_an_analog_layer_becomes_slope_and_offset() -> None:
    layer, norm = analog(torch.randn(3, 4, 3, 3), torch.ones(3), 0.25, 2.0), nn.BatchNorm2d(3).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
        norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))
    x = integers(2, 4, 5, 5, lo=-60, hi=60) / 4
    expected = norm(layer(x)).detach()
    before = layer.weight.detach().clone()
    network = torch.fx.GraphModule({"layer": layer, "norm": norm}, graph_of("layer", "norm"))
    edits = FoldBatchNorm()(network)
    assert [e.note for e in edits] == ["norm folded into slope and offset after the converter"]
    assert [type(m).__name__ for _, m in calls(network, nn.Module)] == ["FakeAnalogConv2d"]
    torch.testing.assert_close(network(x).detach(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(layer.weight, before)


def graph_of(*names: str) -> torch.fx.Graph:
    """A chain of modules."""
    graph = torch.fx.Graph()
    node = graph.placeholder("x")
    for name in names:
        node = graph.call_module(name, (node,))
    graph.output(node)
    return graph


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60)
@given(
    st.integers(0, 2**31 - 1), SHAPES, SHAPES, SHAPES, st.tuples(*[st.integers(0, 2)] * 4), st.integers(1, 3),
    st.integers(0, 8), st.sampled_from([8, 16]), st.integers(0, 12), st.booleans(), st.integers(1, 5),
)  # fmt: skip
def test_exact_and_integer_layers_compute_what_numpy_computes(
    seed: int, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    pads: tuple[int, int, int, int], count: int, gain: int, bits: int, shift: int, rectified: bool, channels: int,
) -> None:  # fmt: skip
    """Any geometry, tiles, gain, magnitude of k and l, and shift."""
    generator = torch.Generator().manual_seed(seed)
    geometry = Geometry(stride, pads, dilation, 1)
    weight = torch.randn(channels, 2 * count + seed % 2, *kernel, generator=generator)
    like = analog(weight, torch.rand(channels, generator=generator) + 0.2, 0.5, 1.0, geometry)
    tiles = RowTiles(count, -(-weight.shape[1] // count))
    like.tiles, like.slope = tiles, torch.randn(channels, generator=generator)
    like.bias = nn.Parameter(torch.randn(channels, generator=generator) * 50)
    qrange = RECTIFIED if rectified else INT8
    exact = ExactAnalogConv2d(like, 2.0**gain, Requantisation(0.5, 2.0**shift / 16, shift, qrange), bits).eval()
    x = integers(2, weight.shape[1], 8, 8, lo=0 if rectified else -63, hi=127 if rectified else 63, seed=seed)

    k, offset, ternary = (as_int(t) for t in (exact.integer_gain(), exact.integer_bias(), exact.integer_weight()))
    limit = {8: 255, 16: 32767}[bits]
    assert max(np.abs(k).max(), np.abs(offset).max()) <= limit
    assert set(np.unique(ternary)) <= {-1, 0, 1}
    size = tiles.channels
    a = sum(
        conversions(as_int(x)[:, i : i + size], ternary[:, i : i + size], 2**gain, geometry)
        for i in range(0, weight.shape[1], size)
    )
    expected = shift_clip(a * k[:, None, None] + offset[:, None, None], shift, qrange.lo, qrange.hi)
    assert np.array_equal(as_int(exact(x)), expected)
    integer = IntegerAnalogConv2d(
        exact.integer_weight().detach(), exact.integer_gain().detach(), exact.integer_bias().detach(), 2**gain,
        Shift(shift, qrange), geometry,
    )  # fmt: skip
    integer.tiles = tiles
    assert np.array_equal(as_int(integer(x)), expected)


def test_tiles_of_a_real_size_are_converted_one_by_one() -> None:
    """300 ones of input 1 in two arrays of 150 rows of 9: every tile saturates by itself."""
    weight = torch.ones(1, 300, 3, 3)
    layer = IntegerAnalogConv2d(weight, torch.ones(1), torch.zeros(1), 16, Shift(0, INT8), PLAIN)
    assert layer.tiles == RowTiles(3, 100)
    assert layer(torch.ones(1, 300, 3, 3)).item() == 3 * 31  # 900 // 16 = 56 in each tile, clipped
    assert layer(torch.full((1, 300, 3, 3), 0.0)).item() == 0
    x = torch.zeros(1, 300, 3, 3)
    x[0, :2, 0, 0] = torch.tensor([15.0, 1.0])
    assert layer(x).item() == 1
    x[0, 1, 0, 0], x[0, 299, 0, 0] = 0, 1
    assert layer(x).item() == 0  # 15 // 16 + 1 // 16


def test_the_bound_is_the_largest_magnitude_of_the_affine_part() -> None:
    layer = IntegerAnalogConv2d(
        torch.ones(2, 300, 3, 3), torch.tensor([3.0, -255]), torch.tensor([-7.0, 100]), 1, Shift(0, INT8), PLAIN
    )
    assert layer.bound == 3 * 32 * 255 + 100


@pytest.mark.parametrize(("bits", "limit"), [(8, 255), (16, 32767)])
def test_k_and_l_stay_within_their_bits(bits: int, limit: int) -> None:
    like = analog(torch.ones(3, 2, 1, 1), torch.ones(3), 1.0, 1.0)
    like.slope, like.bias = torch.tensor([1e6, -1e6, 1.0]), nn.Parameter(torch.tensor([1e9, -1e9, 0.0]))
    exact = ExactAnalogConv2d(like, 1.0, Requantisation(1.0, 16.0, 4, INT8), bits)
    assert largest_magnitude(bits) == limit
    assert exact.integer_gain().tolist() == [limit, -limit, 1]
    assert exact.integer_bias()[:2].tolist() == [limit, -limit]
    assert exact.integer_bias()[2] == 1 + 8  # half a converter step rounds up, and half of 2^4


def test_step_and_offset_of_a_layer() -> None:
    like = analog(torch.ones(2, 300, 3, 3), torch.tensor([0.5, 2.0]), 1.0, 1.0)
    step, offset = analog_affine(like, 8.0)
    assert step.tolist() == [4.0, 16.0]
    assert offset.tolist() == [4.0 * 1.5, 16.0 * 1.5]  # three tiles
    like.slope, like.bias = torch.tensor([-1.0, 0.5]), nn.Parameter(torch.tensor([1.0, 2.0]))
    step, offset = analog_affine(like, 8.0)
    assert step.tolist() == [-4.0, 8.0]
    assert offset.tolist() == [-6.0 + 1, 12.0 + 2]


def shift_error(n: int, gain: Tensor, bias: Tensor, out_scale: float, qrange: QRange, bits: int) -> float:
    """Mean squared error of `clip((a k + l) >> n)`, from the definition, in Python's integers."""
    limit, total = largest_magnitude(bits), 0.0
    step = out_scale / 2**n
    for g, b in zip(gain.tolist(), bias.tolist(), strict=True):
        k = max(-limit, min(limit, round(g / step)))
        offset = max(-limit, min(limit, round(b / step) + (2**n >> 1)))
        for a in range(-32, 32):
            wanted = max(qrange.lo, min(qrange.hi, (a * g + b) / out_scale))
            total += (max(qrange.lo, min(qrange.hi, (a * k + offset) >> n)) - wanted) ** 2
    return total / (64 * len(gain))


@settings(max_examples=40)
@given(
    st.integers(0, 2**31 - 1), st.floats(1e-3, 1e3), st.floats(1e-2, 1e2), st.sampled_from([INT8, RECTIFIED]),
    st.sampled_from([8, 16]),
)  # fmt: skip
def test_the_shift_is_the_best_of_all(seed: int, size: float, out_scale: float, qrange: QRange, bits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gain = (torch.randn(3, generator=generator) * size).double()
    bias = (torch.randn(3, generator=generator) * size * 20).double()
    chosen = choose_analog_shift(gain, bias, out_scale, qrange, bits)
    errors = [shift_error(n, gain, bias, out_scale, qrange, bits) for n in range(32)]
    assert 0 <= chosen <= 31
    assert errors[chosen] == pytest.approx(min(errors), rel=1e-9, abs=1e-12)


def test_of_equal_shifts_the_smallest_is_taken() -> None:
    nothing = torch.zeros(2, dtype=torch.float64)
    assert choose_analog_shift(nothing, nothing, 1.0, INT8, 8) == 0


def test_sixteen_bits_are_more_precise_than_eight() -> None:
    gain, bias = torch.tensor([0.37, 0.011, 1.3]), torch.tensor([3.3, -7.7, 0.1])
    errors = []
    for bits in (8, 16):
        n = choose_analog_shift(gain, bias, 1.0, INT8, bits)
        errors.append(shift_error(n, gain.double(), bias.double(), 1.0, INT8, bits))
    assert errors[1] < errors[0]


def test_an_affine_part_beyond_float32_is_refused_by_name() -> None:
    like = analog(torch.ones(1, 2, 1, 1), torch.ones(1), 1.0, 1.0)
    like.slope = torch.tensor([1e9])
    like.tiles = RowTiles(2, 1)
    exact = ExactAnalogConv2d(like, 1.0, Requantisation(1.0, 1.0, 0, INT8), 16)
    exact.weight = nn.Parameter(torch.ones(1, 17 * 1152, 1, 1))
    network = torch.fx.GraphModule({"wide": exact}, graph_of("wide"))
    with pytest.raises(
        QuantisationError, match=r"wide: with 17 row tiles its k and l can reach .*batch_norm_bits 8"
    ) as e:
        run_editors(network, [Integerise()])
    assert e.value.param == "wide"
    exact.bits = 8
    run_editors(network, [Integerise()])
    assert isinstance(network.get_submodule("wide"), IntegerAnalogConv2d)
