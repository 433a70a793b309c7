"""Modules that hold and compute integers only: the network that is exported.

They compute in float64, or in float32 where the layer's bound guarantees that it is exact, because torch has no
integer convolutions on the CPU; every value is an integer all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.schemas.ranges import QRange
from dianaq_quant.modules.adc import RowTiles
from dianaq_quant.modules.exact import accumulator_bound
from dianaq_quant.modules.structure import Geometry, convolve, more_channels
from dianaq_quant.targets.diana import ADC, FLOAT32_EXACT_LIMIT


@dataclass(frozen=True)
class Shift:
    """`clip(x >> shift, lo, hi)`."""

    shift: int
    qrange: QRange

    def __call__(self, x: Tensor) -> Tensor:
        return torch.floor(x * 2.0**-self.shift).clamp_(self.qrange.lo, self.qrange.hi)


class _IntegerLinearOp(nn.Module):
    """Weights int8, bias int32, shift and clip."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, shift: Shift) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("bias", bias.to(torch.int32))
        self.shift = shift
        self.bound = accumulator_bound(weight, bias)
        """Largest magnitude of the accumulator for any int8 input."""

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that holds the accumulator exactly."""
        return torch.float32 if self.bound < FLOAT32_EXACT_LIMIT else torch.float64

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The layer's linear operation."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        accumulator = self.linear(x.to(self.dtype), self.weight.to(self.dtype), self.bias.to(self.dtype))
        return self.shift(accumulator).to(x.dtype)


class IntegerConv2d(_IntegerLinearOp):
    """A convolution in integers. Input (N, C_in, H, W)."""

    def __init__(self, weight: Tensor, bias: Tensor, shift: Shift, geometry: Geometry) -> None:
        super().__init__(weight, bias, shift)
        self.geometry = geometry

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve(x, weight, bias, self.geometry)


class IntegerLinear(_IntegerLinearOp):
    """A fully connected layer in integers. Input (N, C_in)."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)


class IntegerAnalogConv2d(nn.Module):
    """A convolution on the analog core in integers: `clip((k sum_t clip(floor(acc_t / g)) + l) >> n)`.

    Input (N, C_in, H, W). Weights int8, `k` and `l` int32 (C_out,), g a power of two.
    """

    weight: Tensor
    k: Tensor
    l: Tensor  # noqa: E741 - the hardware's own name

    def __init__(self, weight: Tensor, k: Tensor, offset: Tensor, gain: int, shift: Shift, geometry: Geometry) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("k", k.to(torch.int32))
        self.register_buffer("l", offset.to(torch.int32))
        self.gain, self.shift, self.geometry = gain, shift, geometry
        self.tiles = RowTiles.of(weight.shape[1], (weight.shape[2], weight.shape[3]))
        self.bound = float((self.tiles.count * -ADC.lo * k.abs() + offset.abs()).max())
        """Largest magnitude of `a k + l`."""

    def forward(self, x: Tensor) -> Tensor:
        accumulator = self.tiles.multiply(x.double(), self.weight.double(), self.geometry)
        a = self.tiles.collect(torch.floor(accumulator / self.gain).clamp_(ADC.lo, ADC.hi))
        affine = a * self.k.reshape(1, -1, 1, 1) + self.l.reshape(1, -1, 1, 1)
        return self.shift(affine).to(x.dtype)


class IntegerAdd(nn.Module):
    """`clip((a + b) >> shift)`."""

    def __init__(self, shift: Shift) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.shift(a + b)


class IntegerRelu(nn.Module):
    """`clip(x, 0, hi)` of integers: a ReLU that is an operation of its own."""

    def __init__(self, qrange: QRange) -> None:
        super().__init__()
        self.qrange = qrange

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.qrange.lo, self.qrange.hi)


class IntegerGlobalAvgPool2d(nn.Module):
    """Floor of the mean of non-negative integers; (N, C, H, W) to (N, C, 1, 1)."""

    def __init__(self, qrange: QRange) -> None:
        super().__init__()
        self.qrange = qrange

    def forward(self, x: Tensor) -> Tensor:
        total = x.sum((2, 3), keepdim=True).long()
        mean = torch.div(total, x.shape[2] * x.shape[3], rounding_mode="floor")
        return mean.clamp_(self.qrange.lo, self.qrange.hi).to(x.dtype)


class IntegerInput(nn.Module):
    """From real numbers to the first integers: `clip(floor(x / scale))`."""

    def __init__(self, scale: float, qrange: QRange) -> None:
        super().__init__()
        self.scale, self.qrange = scale, qrange
        self.origin = 0.0
        """Real value of 0."""
        self.padding = 0
        """Channels of zeros that follow those of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return more_channels(torch.floor(x / self.scale).clamp_(self.qrange.lo, self.qrange.hi), self.padding)


class IntegerOutput(nn.Module):
    """From the last integers to real numbers: a division by a power of two."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x / (1.0 / self.scale)
