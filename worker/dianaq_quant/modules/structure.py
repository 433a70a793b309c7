"""Float operators with ONNX's semantics that `torch.nn` does not have as modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pads = tuple[int, int, int, int]
"""Top, left, bottom, right: ONNX's order for two spatial dimensions."""


def pad2d(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Pad the two last dimensions; nothing is copied where there is nothing to pad."""
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def more_channels(x: Tensor, count: int) -> Tensor:
    """As many channels of zeros behind those of a batch."""
    return F.pad(x, (0, 0) * (x.dim() - 2) + (0, count)) if count else x


@dataclass(frozen=True)
class Geometry:
    """Stride, padding, dilation and groups of a 2-d convolution."""

    stride: tuple[int, int]
    pads: Pads
    dilation: tuple[int, int]
    groups: int


class Conv2d(nn.Conv2d):
    """A 2-d convolution whose four paddings may differ, as ONNX allows."""

    def __init__(self, *args: Any, pads: Pads = (0, 0, 0, 0), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pads = pads

    @property
    def geometry(self) -> Geometry:
        """How the kernel moves over the map."""
        stride, dilation = self.stride, self.dilation
        return Geometry((stride[0], stride[1]), self.pads, (dilation[0], dilation[1]), self.groups)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(input, weight, bias, self.geometry)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve; symmetric padding is left to the kernel, which is faster."""
    top, left, bottom, right = geometry.pads
    padding = (top, left) if (top, left) == (bottom, right) else (0, 0)
    if padding == (0, 0):
        x = pad2d(x, geometry.pads)
    reach = geometry.dilation[1] * (weight.shape[3] - 1)
    if x.shape[1] == 1 and x.shape[3] + 2 * padding[1] - reach <= geometry.stride[1]:
        # From one channel in channels-last layout to a map one column wide, oneDNN 3.12 adds what happens to be in
        # memory to the sums. Strides as of the plain layout, which is the same here, make it take another way.
        x, weight = (tensor.squeeze(1).unsqueeze(1) for tensor in (x, weight))
    return F.conv2d(x, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups)


class MaxPool2d(nn.Module):
    """Max pooling; padding never wins (it is minus infinity)."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads) -> None:
        super().__init__()
        self.kernel, self.stride, self.pads = kernel, stride, pads

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad2d(x, self.pads, -torch.inf), self.kernel, self.stride)


class AvgPool2d(nn.Module):
    """Average pooling; padding counts as zeros (`count_include_pad`)."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads) -> None:
        super().__init__()
        self.kernel, self.stride, self.pads = kernel, stride, pads

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(pad2d(x, self.pads), self.kernel, self.stride)


class GlobalAvgPool2d(nn.Module):
    """Mean over the two spatial dimensions, which stay as 1 x 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Ceiling(nn.Hardtanh):
    """A ReLU that saturates: `min(max(x, 0), ceiling)`, ReLU6 for 6."""

    def __init__(self, ceiling: float) -> None:
        super().__init__(0.0, ceiling)


class Add(nn.Module):
    """Element-wise sum of two tensors of one shape."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Flatten(nn.Module):
    """All dimensions but the batch become one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Affine(nn.Module):
    """`x * scale + shift` with constants: one value, or one per index of a dimension. Lowered after the import.

    Args:
        scale, shift: (1,) or (n,), n being the size of dimension `dim`; kept in float64, so that several merge exactly.
        dim: the dimension along which they differ; 1 is the channels of (N, C, H, W).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, dim: int = 1) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().double().reshape(-1))
        self.register_buffer("shift", shift.detach().double().reshape(-1))
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = (
            v.to(x.dtype).reshape([-1 if d == self.dim else 1 for d in range(x.dim())])
            for v in (self.scale, self.shift)
        )
        return x * scale + shift


class ScaledAdd(nn.Module):
    """`a + factor * b` of two tensors of one shape. Lowered after the import."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + self.factor * b


class Clamp(nn.Module):
    """`min(max(x, lo), hi)`; infinite bounds are none. Lowered after the import."""

    def __init__(self, lo: float, hi: float) -> None:
        super().__init__()
        self.lo, self.hi = lo, hi

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.lo, self.hi)


def bounded(lo: float | None, hi: float | None) -> nn.Module:
    """`min(max(x, lo), hi)` as a ReLU or a ceiling where it is one. None, or beyond float32, is no bound."""
    largest, none = torch.finfo(torch.float32).max, float("inf")
    lo = -none if lo is None or lo <= -largest else lo
    hi = none if hi is None or hi >= largest else hi
    if lo == 0 < hi:
        return nn.ReLU() if hi == none else Ceiling(hi)
    return Clamp(lo, hi)


class Pad2d(nn.Module):
    """Zeros around a map, and as further channels before and after its own. Lowered after the import."""

    def __init__(self, pads: Pads, channels: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.pads, self.channels = pads, channels

    def forward(self, x: Tensor) -> Tensor:
        top, left, bottom, right = self.pads
        return F.pad(x, (left, right, top, bottom, *self.channels))


class Slice2d(nn.Module):
    """Every `step`-th row and column of a map, `size` of them from `start` on. Lowered after the import."""

    def __init__(self, start: tuple[int, int], step: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__()
        self.start, self.step, self.size = start, step, size

    def forward(self, x: Tensor) -> Tensor:
        (top, left), (down, right), (height, width) = self.start, self.step, self.size
        return x[:, :, top : top + (height - 1) * down + 1 : down, left : left + (width - 1) * right + 1 : right]
