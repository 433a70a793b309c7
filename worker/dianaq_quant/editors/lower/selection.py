"""Convolutions that only move values: each output is one input, or zero."""

from __future__ import annotations

import torch

from dianaq_quant.editors.canonicalise.diagonal import groups_apart
from dianaq_quant.modules.structure import Conv2d, Pads


def selection(
    channels: int,
    *,
    before: int = 0,
    after: int = 0,
    kernel: tuple[int, int] = (1, 1),
    tap: tuple[int, int] = (0, 0),
    stride: tuple[int, int] = (1, 1),
    pads: Pads = (0, 0, 0, 0),
) -> Conv2d:
    """`y[before + c, i, j] = x[c, i * stride + tap - pads]`, the other channels zero.

    Its weights are 0 and 1, exact in int8.

    Args:
        channels: of the input.
        before, after: channels of zeros around them. Without any, it is depthwise where `groups_apart` says so.
        kernel, tap: the kernel's size, and the place of the 1 in it.
    """
    outputs = before + channels + after
    groups = groups_apart(channels) if outputs == channels else 1
    conv = Conv2d(channels, outputs, kernel, stride, groups=groups, bias=False, pads=pads)
    with torch.no_grad():
        conv.weight.zero_()
        for channel in range(channels):
            conv.weight[before + channel, channel if groups == 1 else 0, tap[0], tap[1]] = 1.0
    return conv
