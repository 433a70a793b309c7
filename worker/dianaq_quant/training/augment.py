"""Augmentation of whole batches: every operation takes all samples at once, on the device that they are on.

Maps are (N, C, H, W), channels-last in memory; what comes in from outside them is 0. What is random is given: a number
a sample, drawn on the CPU, so that every device sees the same. Noise, a number for each value, is read from a pool.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dianaq_quant import gaussian
from dianaq_quant.training.data import lines


def move(x: Tensor, mirrored: Tensor | None, down: Tensor, right: Tensor, most: int) -> Tensor:
    """Mirror the chosen maps left to right, then move each by whole pixels; see `clear` for what comes in from outside.

    Args:
        x: of any type; cheapest as bytes.
        mirrored: (N,) of bool; None where no map is mirrored.
        down, right: (N,) of int64, how far; `right` in -most..most.
    """
    n, channels, height, width = x.shape
    stored = x.permute(0, 2, 3, 1).contiguous()
    beside = stored.new_zeros(most * channels)
    both = [stored] if mirrored is None else [stored, stored.flip(2)]
    memory = torch.cat([beside, *(maps.flatten() for maps in both), beside])
    # Wherever a line of the result begins, it lies in memory in one piece and is copied as such: beyond the ends of the
    # map's line with what lies beside it there, above and below the map as its first and last line again.
    pieces = memory.as_strided((len(memory) // channels - width + 1, width * channels), (channels, 1))
    sample = torch.arange(n, device=x.device)
    if mirrored is not None:
        sample = sample + n * mirrored
    row = (torch.arange(height, device=x.device) - down.unsqueeze(1)).clamp(0, height - 1)
    start = (sample.unsqueeze(1) * height + row) * width + most - right.unsqueeze(1)
    found = pieces.index_select(0, start.flatten())
    return found.view(n, height, width, channels).permute(0, 3, 1, 2)


def clear(x: Tensor, down: Tensor, right: Tensor, most: tuple[int, int]) -> Tensor:
    """Set to 0, in place, what came in from outside when maps were moved.

    Args:
        down, right: (N,) of int64, how far they were.
        most: bounds of both; what lies further inside is not looked at.
    """
    _, channels, height, width = x.shape
    rows = _inside(height, down, x.dtype)
    columns = _inside(width, right, x.dtype).repeat_interleave(channels, 1)
    tall, wide = most[0], most[1] * channels
    for first, last in ((0, tall), (height - tall, height)):
        lines(x)[:, first:last].mul_(rows[:, first:last].unsqueeze(2))
    for first, last in ((0, wide), (width * channels - wide, width * channels)):
        lines(x)[:, :, first:last].mul_(columns[:, first:last].unsqueeze(1))
    return x


def _inside(side: int, moved: Tensor, dtype: torch.dtype) -> Tensor:
    """Per sample 1 where a place was in the map before it was moved, else 0; (N, side)."""
    before = torch.arange(side, device=moved.device) - moved.unsqueeze(1)
    return ((before >= 0) & (before < side)).to(dtype)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn each map about its centre, bilinear; counter-clockwise as it is seen, for angles (N,) above 0."""
    height, width = x.shape[2:]
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # From a pixel of the result to that of the map which it shows, in units of half the width and half the height.
    across = torch.stack((cos, -sin * (height / width), zero), 1)
    down = torch.stack((sin * (width / height), cos, zero), 1)
    grid = F.affine_grid(torch.stack((across, down), 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False).contiguous(memory_format=torch.channels_last)


def cut_out(x: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Tensor:
    """Set a rectangle of each map to 0, in place.

    Args:
        row, column: (N,) of int64, its first; it may begin or end outside the map.
        size: its height and width.
    """
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device) - row.unsqueeze(1)
    columns = torch.arange(width, device=x.device) - column.unsqueeze(1)
    inside_rows = (rows >= 0) & (rows < size[0])
    inside_columns = ((columns >= 0) & (columns < size[1])).repeat_interleave(x.shape[1], 1)
    lines(x).masked_fill_(inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1), 0.0)
    return x


def disturb(x: Tensor, sigma: float, first: Tensor) -> Tensor:
    """Add Gaussian noise, in place; inputs of any shape.

    Args:
        sigma: its standard deviation.
        first: (N,) of int64, where in the pool each sample's values begin (see `gaussian.pool`).
    """
    stored = x.permute(0, 2, 3, 1) if x.dim() == 4 else x  # as it lies in memory
    size = stored[0].numel()
    pieces = gaussian.pool(x.device, size).as_strided((gaussian.POOL_SIZE, size), (1, 1))
    stored.add_(pieces.index_select(0, first).view_as(stored), alpha=sigma)
    return x


def mix(x: Tensor, shares: Tensor) -> Tensor:
    """Mix each sample with its partner, of which it keeps its share in (N,); inputs of any shape."""
    layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    mixed = torch.lerp(partners(x), x, shares.reshape(-1, *[1] * (x.dim() - 1)))
    return mixed.contiguous(memory_format=layout)


def partners(values: Tensor) -> Tensor:
    """What samples (or labels) are mixed with: each with the one before it, as the order of a batch is random."""
    return torch.cat((values[-1:], values[:-1]))


def draw_shares(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Shares (N,) from Beta(alpha, alpha), as the quotient of two Gamma variates over their sum.

    `Gamma(a) = Gamma(a + 1) U^(1/a)` (Marsaglia and Tsang, 2000, section 6), in logarithms, where none vanishes.
    """
    ones = torch.ones((2, count), dtype=torch.float64)
    larger = torch._standard_gamma(ones * (alpha + 1), generator=generator)
    uniform = torch.rand((2, count), dtype=torch.float64, generator=generator)
    logs = larger.log() + torch.log1p(-uniform) / alpha
    return torch.sigmoid(logs[0] - logs[1]).to(torch.float32)


def places(uniform: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) as integers in 0..count - 1; a product of float32 below 1 does not round up to the count."""
    return (uniform * count).to(torch.int64)


def spread(uniform: Tensor, most: int) -> Tensor:
    """Numbers in [0, 1) as integers in -most..most."""
    return places(uniform, 2 * most + 1) - most
