"""Layers that scale each channel by itself: what an operator becomes that the chip lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dianaq_quant.modules.structure import Conv2d

DEPTHWISE = 4
"""HTVM takes a depthwise layer whose channels are a multiple of this (rule `htvm.depthwise`), and padding cannot help
where the network's input, of three colours, is what it reads."""


def groups_apart(channels: int) -> int:
    """Groups of a convolution that keeps channels apart: depthwise where every compiler takes that, else 1."""
    return channels if channels % DEPTHWISE == 0 else 1


def diagonal(weight: Tensor, bias: Tensor | None, *, spatial: bool) -> Conv2d | nn.Linear:
    """`y[c] = weight[c] * x[c] + bias[c]`: a 1x1 convolution for maps, a diagonal matrix for vectors.

    Of a convolution of one group (`groups_apart`), the other weights are 0.

    Args:
        weight, bias: per channel, shape (C,).
        spatial: whether the input is (N, C, H, W) or (N, C).
    """
    channels = len(weight)
    layer: Conv2d | nn.Linear
    if spatial:
        groups = groups_apart(channels)
        layer = Conv2d(channels, channels, (1, 1), groups=groups, bias=bias is not None)
        values = (torch.diag(weight) if groups == 1 else weight).reshape(channels, -1, 1, 1)
    else:
        layer = nn.Linear(channels, channels, bias=bias is not None)
        values = torch.diag(weight)
    with torch.no_grad():
        layer.weight.copy_(values)
        if bias is not None:
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return layer


def identity(channels: int, *, spatial: bool) -> Conv2d | nn.Linear:
    """A layer that leaves its input as it is. Its weight, 1, is exact in int8 (64 steps of 2^-6)."""
    return diagonal(torch.ones(channels), None, spatial=spatial)
