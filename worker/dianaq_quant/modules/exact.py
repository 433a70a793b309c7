"""Modules that compute what the digital core computes, on float tensors that hold integers, with gradients.

A tensor's real value is `scale * integer`; the scales are applied outside. Their parameters are real (trained);
their forward rounds, shifts, floors and clips as the hardware does (`targets.diana`), so that training sees the
very network that is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.ranges import QRange
from dianaq_quant.modules.structure import Conv2d, convolve
from dianaq_quant.quantisers.functions import floor_clip, round_clip, round_through
from dianaq_quant.targets.diana import FLOAT32_EXACT_LIMIT, INT8


class ExactInput(nn.Module):
    """The network's input: `clip(floor(x / scale))`, as the exported graph computes it."""

    def __init__(self, scale: float, qrange: QRange) -> None:
        super().__init__()
        self.scale, self.qrange = scale, qrange

    def forward(self, x: Tensor) -> Tensor:
        return floor_clip(x / self.scale, self.qrange.lo, self.qrange.hi)


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

    def __call__(self, accumulator: Tensor) -> Tensor:
        return floor_clip(accumulator * 2.0**-self.shift, self.qrange.lo, self.qrange.hi)


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
        return round_clip(self.weight / self.requantise.weight_scale, self.weight_range.lo, self.weight_range.hi)

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


ExactLinearOp = ExactConv2d | ExactLinear


class ExactAdd(nn.Module):
    """`clip((a + b) >> shift)`, both inputs on one scale."""

    def __init__(self, requantise: Requantisation) -> None:
        super().__init__()
        self.requantise = requantise

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.requantise(a + b)


class ExactGlobalAvgPool2d(nn.Module):
    """`clip(floor(mean))` of non-negative integers; (N, C, H, W) to (N, C, 1, 1).

    The quotient of two integers below 2^24 never rounds up to an integer in float32, so the floor is exact.
    """

    def __init__(self, qrange: QRange) -> None:
        super().__init__()
        self.qrange = qrange

    def forward(self, x: Tensor) -> Tensor:
        mean = x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
        return floor_clip(mean, self.qrange.lo, self.qrange.hi)


def accumulator_bound(weight: Tensor, bias: Tensor) -> float:
    """The largest magnitude that any int8 input can drive the accumulator to: `max(128 sum|w| + |b|)`."""
    sums = weight.detach().double().abs().flatten(1).sum(1) * -INT8.lo + bias.detach().double().abs()
    return float(sums.max())
