"""Which modules leave their values where they are, and so may change places with what moves them; and which do not."""

from __future__ import annotations

from torch import nn

from dianaq_quant.modules.activations import KINDS, SlopedReLU
from dianaq_quant.modules.structure import Add, AvgPool2d, Ceiling, Conv2d, GlobalAvgPool2d, MaxPool2d

SLOPED = (nn.PReLU, SlopedReLU)
"""Activations whose slope may differ from channel to channel."""

POINTWISE = (nn.ReLU, Ceiling, Add, *(kind for kind in KINDS if kind not in SLOPED))
"""Modules that compute each value from those at the same place of their inputs, all places alike."""

WINDOWED = (Conv2d, MaxPool2d, AvgPool2d, GlobalAvgPool2d, nn.BatchNorm2d)
"""Modules of maps (C, H, W)."""
