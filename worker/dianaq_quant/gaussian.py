"""Gaussian values that are drawn once and then read from random places.

To draw every value afresh, one after another, takes as long as the convolutions of a training step do.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

POOL_SIZE = 1 << 22
"""Different values: a batch of the largest layers in use sees each about once."""


@functools.cache
def pool(device: torch.device, longest: int) -> Tensor:
    """Standard Gaussian values on a device, (POOL_SIZE + longest,), the same in every process.

    They come round again: so many values at most may be read from any of the first POOL_SIZE places on.
    """
    values = torch.randn(POOL_SIZE, generator=torch.Generator().manual_seed(0))
    return values.repeat(2 + longest // POOL_SIZE)[: POOL_SIZE + longest].to(device)
