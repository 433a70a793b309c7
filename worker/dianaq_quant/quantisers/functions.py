"""Rounding with a gradient: straight-through inside the range, zero where the value was clipped.

Bengio et al., 2013 (straight-through estimator); the clipped form as in Jacob et al., 2018.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class _RoundClip(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lo: int, hi: int) -> Tensor:
        rounded = torch.floor(x + 0.5)
        ctx.save_for_backward((rounded >= lo) & (rounded <= hi))
        return rounded.clamp_(lo, hi)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


class _FloorClip(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lo: int, hi: int) -> Tensor:
        floored = torch.floor(x)
        ctx.save_for_backward((floored >= lo) & (floored <= hi))
        return floored.clamp_(lo, hi)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


class _Round(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def _differentiates(x: Tensor) -> bool:
    """Whether a gradient will be asked for; if not, no mask needs to be made and kept."""
    return torch.is_grad_enabled() and x.requires_grad


def round_clip(x: Tensor, lo: int, hi: int) -> Tensor:
    """`clip(floor(x + 1/2), lo, hi)`: integers of the range, any shape."""
    if not _differentiates(x):
        return (x + 0.5).floor_().clamp_(lo, hi)
    return _RoundClip.apply(x, lo, hi)  # type: ignore[no-untyped-call, no-any-return]


def floor_clip(x: Tensor, lo: int, hi: int) -> Tensor:
    """`clip(floor(x), lo, hi)`: what a right shift and a saturation compute."""
    if not _differentiates(x):
        return torch.floor(x).clamp_(lo, hi)
    return _FloorClip.apply(x, lo, hi)  # type: ignore[no-untyped-call, no-any-return]


def round_through(x: Tensor) -> Tensor:
    """`floor(x + 1/2)`, with the gradient of the identity."""
    return _Round.apply(x)  # type: ignore[no-untyped-call, no-any-return]


def fake_quantise(x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
    """`s * clip(floor(x/s + 1/2), lo, hi)`: the nearest representable value, same shape as `x`."""
    return round_clip(x / scale, lo, hi) * scale
