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
