"""Which modules leave their values where they are, and so may change places with what moves them; and which do not."""

from __future__ import annotations

from torch import nn

from dianaq_quant.modules.activations import KINDS, SlopedReLU
from dianaq_quant.modules.structure import (
    Add,
    Affine,
    AvgPool2d,
    Ceiling,
    Clamp,
    Conv2d,
    GlobalAvgPool2d,
    MaxPool2d,
    ScaledAdd,
)

SLOPED = (nn.PReLU, SlopedReLU)
"""Activations whose slope may differ from channel to channel."""

PLACED = (*SLOPED, Affine)
"""Modules that compute each value from the one at the same place, with constants that may differ between places."""

POINTWISE = (nn.ReLU, Ceiling, Clamp, Add, ScaledAdd, *(kind for kind in KINDS if kind not in SLOPED))
"""Modules that compute each value from those at the same place of their inputs, all places alike."""

WINDOWED = (Conv2d, MaxPool2d, AvgPool2d, GlobalAvgPool2d, nn.BatchNorm2d)
"""Modules of maps (C, H, W)."""
