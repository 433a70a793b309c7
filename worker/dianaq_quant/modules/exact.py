"""Modules that compute what the two cores compute, on float tensors that hold integers, with gradients.

A tensor's real value is `scale * integer`; the scales are applied outside. Their parameters are real (trained);
their forward rounds, shifts, floors and clips as the hardware does (`targets.diana`), so that training sees the
very network that is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.schemas.ranges import QRange
from dianaq_quant.kernels import Shift
from dianaq_quant.modules.adc import Adc
from dianaq_quant.modules.fake import FakeAnalogConv2d
from dianaq_quant.modules.structure import Conv2d, convolve
from dianaq_quant.quantisers.functions import floor_clip, integers_of, round_clip, round_through
from dianaq_quant.targets.diana import FLOAT32_EXACT_LIMIT, INT8


class ExactInput(nn.Module):
    """The network's input: `clip(floor(x / scale))`, as the exported graph computes it."""

    def __init__(self, scale: float, qrange: QRange) -> None:
        super().__init__()
        self.scale, self.qrange = scale, qrange

    def forward(self, x: Tensor) -> Tensor:
        return floor_clip(x / x.new_tensor(self.scale), self.qrange.lo, self.qrange.hi)


class ExactOutput(nn.Module):
    """The network's output in real numbers: `x / (1 / scale)`, exact because the scale is a power of two."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x / (1.0 / self.scale)


class Requantisation:
    """`clip((acc + bias) >> shift)`, one shift for the layer, with the scales that it connects.

    Args:
        in_scale, out_scale: real value of one step of the layer's input and output.
        shift: n in 0..31; an accumulator step is `out_scale * 2^-n`.
        qrange: integers of the output.
    """

    def __init__(self, in_scale: float, out_scale: float, shift: int, qrange: QRange) -> None:
        self.in_scale, self.out_scale, self.shift, self.qrange = in_scale, out_scale, shift, qrange

    @property
    def accumulator_scale(self) -> float:
        """Real value of one step of the accumulator."""
        return self.out_scale * 2.0**-self.shift

    @property
    def weight_scale(self) -> float:
        """Real value of one step of the weights."""
        return self.accumulator_scale / self.in_scale

    @property
    def half(self) -> int:
        """What turns the shift's floor into round-half-up when it is added to the bias."""
        return 1 << (self.shift - 1) if self.shift else 0

    @property
    def divisor(self) -> float:
        """What the shift divides by."""
        return 2.0**self.shift

    def __call__(self, accumulator: Tensor, other: Tensor | None = None) -> Tensor:
        return floor_clip(accumulator, self.qrange.lo, self.qrange.hi, divisor=self.divisor, other=other)


class _ExactLinearOp(nn.Module):
    """Common part of convolution and fully connected layer."""

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, weight: Tensor, bias: Tensor | None, qrange: QRange, requantise: Requantisation) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(
            torch.zeros(weight.shape[0], device=weight.device) if bias is None else bias.detach().clone()
        )
        self.weight_range = qrange
        self.requantise = requantise

    def integer_weight(self) -> Tensor:
        """The weight's integers, in the weight's shape."""
        return integers_of(self.weight / self.requantise.weight_scale, self.weight_range)

    def integer_bias(self) -> Tensor:
        """The bias's integers in accumulator steps, the rounding constant included; shape (C_out,)."""
        return round_through(self.bias / self.requantise.accumulator_scale) + self.requantise.half

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The layer's linear operation."""
        raise NotImplementedError

    def accumulate(self, x: Tensor) -> Tensor:
        """The accumulator: exact when evaluating, in float64 where float32 could not hold it."""
        weight, bias = self.integer_weight(), self.integer_bias()
        if not self.training and accumulator_bound(weight, bias) >= FLOAT32_EXACT_LIMIT:
            return self.linear(x.double(), weight.double(), bias.double())
        return self.linear(x, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        accumulator = self.accumulate(x)
        return self.requantise(accumulator).to(x.dtype)


class ExactConv2d(_ExactLinearOp):
    """A convolution on the digital core. Input (N, C_in, H, W), integers."""

    def __init__(self, like: Conv2d, qrange: QRange, requantise: Requantisation) -> None:
        super().__init__(like.weight, like.bias, qrange, requantise)
        self.geometry = like.geometry

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve(x, weight, bias, self.geometry)


class ExactLinear(_ExactLinearOp):
    """A fully connected layer on the digital core. Input (N, C_in), integers."""

    def __init__(self, like: nn.Linear, qrange: QRange, requantise: Requantisation) -> None:
        super().__init__(like.weight, like.bias, qrange, requantise)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)


class ExactAnalogConv2d(nn.Module):
    """A convolution on the analog core: `clip((a k + l) >> n)`, with `a` the sum of the row tiles' conversions.

    Input (N, C_in, H, W), integers. Trained are the latent weights behind the ternary ones, and the real values of a
    converter step (`step`) and of the offset (`bias`) behind `k` and `l`.

    Args:
        like: the fake-quantised layer, its BatchNorm folded.
        gain: the converter's, in steps of the accumulator that the new scales give.
        requantise: shift and scales.
        bits: magnitude of `k` and `l`.
    """

    def __init__(self, like: FakeAnalogConv2d, gain: float, requantise: Requantisation, bits: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(like.weight.detach().clone())
        self.quantiser, self.tiles, self.geometry = like.quantiser, like.tiles, like.geometry
        self.quantiser.scale.freeze()
        self.adc = Adc(gain).to(self.weight.device)
        self.requantise, self.bits = requantise, bits
        step, bias = analog_affine(like, requantise.in_scale * gain)
        self.step, self.bias = nn.Parameter(step), nn.Parameter(bias)

    def integer_weight(self) -> Tensor:
        """The weight's integers, in the weight's shape."""
        return self.quantiser.integers(self.weight)

    def integer_gain(self) -> Tensor:
        """`k`, in accumulator steps per converter step; (C_out,)."""
        limit = largest_magnitude(self.bits)
        return round_clip(self.step / self.requantise.accumulator_scale, -limit, limit)

    def integer_bias(self) -> Tensor:
        """`l`, in accumulator steps, the rounding constant included; (C_out,)."""
        limit, half = largest_magnitude(self.bits), self.requantise.half
        return round_clip(self.bias / self.requantise.accumulator_scale, -limit - half, limit - half) + half

    def accumulate(self, x: Tensor) -> Tensor:
        """`a k + l`; exact in float32 as long as `32 T max|k| + max|l|` stays below 2^24."""
        return self.adc.affine(self._conversions(x), self.tiles, self.integer_gain(), self.integer_bias())

    def _conversions(self, x: Tensor) -> Tensor:
        return self.tiles.multiply(x, self.integer_weight() / self.adc.gain, self.geometry)

    def forward(self, x: Tensor) -> Tensor:
        shift = Shift(self.requantise.divisor, self.requantise.qrange.lo, self.requantise.qrange.hi)
        return self.adc.affine(self._conversions(x), self.tiles, self.integer_gain(), self.integer_bias(), shift)


def analog_affine(layer: FakeAnalogConv2d, unit: float) -> tuple[Tensor, Tensor]:
    """Real value of a converter step, and of the offset, per output channel: `step * a + offset`; (C_out,) each.

    Args:
        unit: what a converter step is worth before weight scale and slope: gain times input scale.
    """
    with torch.no_grad():
        step = layer.quantiser.scale().flatten().expand(layer.weight.shape[0]) * unit
        step = step if layer.slope is None else step * layer.slope
        offset = step * (layer.tiles.count / 2)
        return step, offset if layer.bias is None else offset + layer.bias


def largest_magnitude(bits: int) -> int:
    """The largest magnitude of `k` and `l`: 8 bits beside the sign as in the hardware, or what int16 holds."""
    return (1 << bits) - 1 if bits == 8 else (1 << (bits - 1)) - 1


ExactLinearOp = ExactConv2d | ExactLinear


class ExactAdd(nn.Module):
    """`clip((a + b) >> shift)`, both inputs on one scale."""

    def __init__(self, requantise: Requantisation) -> None:
        super().__init__()
        self.requantise = requantise

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.requantise(a, b)


class ExactGlobalAvgPool2d(nn.Module):
    """`clip(floor(mean))` of non-negative integers; (N, C, H, W) to (N, C, 1, 1).

    The quotient of two integers below 2^24 never rounds up to an integer in float32, so the floor is exact. (Of two
    tensors: by a number, a GPU multiplies with its reciprocal.)
    """

    def __init__(self, qrange: QRange) -> None:
        super().__init__()
        self.qrange = qrange

    def forward(self, x: Tensor) -> Tensor:
        mean = x.sum((2, 3), keepdim=True) / x.new_tensor(x.shape[2] * x.shape[3])
        return floor_clip(mean, self.qrange.lo, self.qrange.hi)


def accumulator_bound(weight: Tensor, bias: Tensor) -> float:
    """The largest magnitude that any int8 input can drive the accumulator to: `max(128 sum|w| + |b|)`."""
    sums = weight.detach().double().abs().flatten(1).sum(1) * -INT8.lo + bias.detach().double().abs()
    return float(sums.max())
