"""Gaussian values that are drawn once and then read from random places.

To draw every value afresh, one after another, takes as long as the convolutions of a training step do.
"""

from __future__ import annotations

import torch
from torch import Tensor

POOL_SIZE = 1 << 22
"""Different values: the converters of the largest layers in use read each about once in a batch."""

_held: dict[torch.device, Tensor] = {}
"""The longest pool that was asked for on each device."""


def pool(device: torch.device, longest: int) -> Tensor:
    """Standard Gaussian values on a device, (POOL_SIZE + longest,), the same in every process.

    They come round again: so many values at most may be read from any of the first POOL_SIZE places on.
    """
    held = _held.get(device)
    if held is None or len(held) < POOL_SIZE + longest:
        values = torch.randn(POOL_SIZE, generator=torch.Generator().manual_seed(0))
        rounds = longest // POOL_SIZE
        held = torch.cat([values] * (1 + rounds) + [values[: longest % POOL_SIZE]]).to(device)
        _held[device] = held
    return held[: POOL_SIZE + longest]
