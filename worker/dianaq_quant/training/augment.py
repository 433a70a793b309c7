"""Augmentation of a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PAD_FRACTION = 8
"""Crops come from the image padded by an eighth of its size: 4 pixels at 32 x 32, as is usual for CIFAR-10
(He et al., 2016)."""


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images left to right; (N, C, H, W)."""
    chosen = torch.rand((len(x), 1, 1, 1), generator=generator) < 0.5
    return torch.where(chosen, x.flip(3), x)


def flip_crop(x: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images left to right, and crop each at random after zero padding; (N, C, H, W)."""
    n, _, height, width = x.shape
    pad_h, pad_w = height // PAD_FRACTION, width // PAD_FRACTION
    padded = F.pad(x, (pad_w, pad_w, pad_h, pad_h))
    top = torch.randint(0, 2 * pad_h + 1, (n, 1), generator=generator)
    left = torch.randint(0, 2 * pad_w + 1, (n, 1), generator=generator)
    flip = torch.rand((n, 1), generator=generator) < 0.5
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(flip, columns.flip(1), columns) + left
    rows = torch.arange(height).expand(n, height) + top
    sample = torch.arange(n).reshape(n, 1, 1)
    # Indexing with dimensions (N, H, W) around the channel slice gives (N, H, W, C): channels-last already.
    return padded[sample, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
