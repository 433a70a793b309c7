"""What the architectures share."""

from __future__ import annotations

from torch import nn

Shape = tuple[int, ...]

CHANNEL_MULTIPLE = 8
"""Scaled channels are multiples of 8, and at least 8, as the MobileNet papers' are. (The chip's columns come in
sixteens, but an eighth-width layer of 16 channels would not shrink at all; nothing pads layers to the columns.)"""


def scaled(channels: int, width: float) -> int:
    """Channels times width, rounded half up to a multiple of 8 and at least 8; at width 1 they are left alone."""
    if width == 1.0:
        return channels
    return max(CHANNEL_MULTIPLE, int(channels * width / CHANNEL_MULTIPLE + 0.5) * CHANNEL_MULTIPLE)


def layer(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 3,
    *,
    stride: int = 1,
    padding: int | tuple[int, int] | None = None,
    groups: int = 1,
) -> list[nn.Module]:
    """A convolution without bias and its BatchNorm. By default an odd square kernel keeps the map's size."""
    if padding is None:
        assert isinstance(kernel, int)
        padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def head(channels: int, classes: int) -> list[nn.Module]:
    """From a map to classes: the mean over the map, and a fully connected layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
