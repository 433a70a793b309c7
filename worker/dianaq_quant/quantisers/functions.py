"""Rounding with a gradient. Straight-through inside the range, zero where the value was clipped.

Bengio et al., 2013 (straight-through estimator); the clipped form as in Jacob et al., 2018. A quantiser's function
is an autograd function `forward(ctx, x, scale, lo, hi)` that gives `s * clip(floor(x/s + 1/2), lo, hi)`, of the shape
of `x`, with `scale` broadcast over it; its backward gives the gradients of `x` and, where it is learned, of `scale`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dianaq.schemas.ranges import QRange
from dianaq_quant import kernels
from dianaq_quant.kernels import Mask, Noise, Shift


def _keep(ctx: Any, mask: Mask | None) -> None:
    """Keep a mask for the gradient."""
    assert mask is not None, "it was asked for"
    ctx.save_for_backward(mask.values)
    ctx.strides = mask.strides


def _kept(ctx: Any) -> Mask:
    (values,) = ctx.saved_tensors
    return Mask(values, ctx.strides)


class _Quantise(Function):
    """`clip(floor((x + other) / divisor + addend), lo, hi)`; gradient `1 / divisor` where nothing was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor | None, divisor: float, addend: float, lo: int, hi: int) -> Tensor:
        y, mask = kernels.quantise(x, divisor, lo, hi, addend=addend, other=other)
        _keep(ctx, mask)
        ctx.divisor = divisor
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradient = kernels.pass_inside(grads[0], _kept(ctx), 1 / ctx.divisor)
        return gradient, gradient if ctx.needs_input_grad[1] else None, None, None, None, None


class _Round(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class StraightThrough(Function):
    """The scale is not learned: `dq/dx = 1` inside the range, 0 outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
        y, mask = kernels.quantise(x, scale, lo, hi, addend=0.5, factor=scale)
        _keep(ctx, mask)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return kernels.pass_inside(grads[0], _kept(ctx)), None, None, None


class LearnedScale(Function):
    """The scale is learned through rounding and clipping: `dq/ds = round(x/s) - x/s` inside, `lo` or `hi` outside.

    Jain et al., 2020, "Trained Quantization Thresholds", equations 6 to 8 (there for `t = log2 s`, whose factor
    `s ln 2` comes from the scale's parametrisation), and Esser et al., 2020, equation 3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
        ratio = x / scale
        q = torch.floor(ratio + 0.5)
        inside = (q >= lo) & (q <= hi)
        q.clamp_(lo, hi)
        ctx.save_for_backward(inside, torch.where(inside, q - ratio, q))
        ctx.shape = scale.shape
        return q * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inside, slope = ctx.saved_tensors
        return grads[0] * inside, (grads[0] * slope).sum_to_size(ctx.shape), None, None


class ClippedReLU(Function):
    """PACT: the upper bound `s * hi` is learned from what it clips: `dq/ds = hi` above it, `lo` below, else 0.

    Choi et al., 2018, "PACT: Parameterized Clipping Activation", equation 3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
        q = (x / scale).add_(0.5).floor_()
        above, below = q > hi, q < lo
        ctx.save_for_backward(above, below)
        ctx.bounds, ctx.shape = (lo, hi), scale.shape
        return q.clamp_(lo, hi).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        above, below = ctx.saved_tensors
        lo, hi = ctx.bounds
        slope = grads[0] * (above * hi + below * lo)
        return grads[0] * ~(above | below), slope.sum_to_size(ctx.shape), None, None


class Sign(Function):
    """Binary: `s * sign(x)` with `sign(0) = 1`; straight-through where `|x| <= s`, and `dq/ds = sign(x)`.

    Rastegari et al., 2016, "XNOR-Net"; the window of the gradient as in Hubara et al., 2016.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
        signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
        ctx.save_for_backward(x.abs() <= scale, signs)
        ctx.shape = scale.shape
        return signs * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        near, signs = ctx.saved_tensors
        return grads[0] * near, (grads[0] * signs).sum_to_size(ctx.shape), None, None


def _differentiates(x: Tensor) -> bool:
    """Whether a gradient will be asked for; if not, no mask needs to be made and kept."""
    return torch.is_grad_enabled() and x.requires_grad


def _quantise(x: Tensor, other: Tensor | None, divisor: float, addend: float, lo: int, hi: int) -> Tensor:
    if _differentiates(x) or (other is not None and _differentiates(other)):
        return _Quantise.apply(x, other, divisor, addend, lo, hi)  # type: ignore[no-untyped-call, no-any-return]
    return kernels.quantise(x, divisor, lo, hi, addend=addend, other=other, mask=False)[0]


def round_clip(x: Tensor, lo: int, hi: int) -> Tensor:
    """`clip(floor(x + 1/2), lo, hi)`: integers of the range, any shape."""
    return _quantise(x, None, 1.0, 0.5, lo, hi)


def floor_clip(x: Tensor, lo: int, hi: int, *, divisor: float = 1.0, other: Tensor | None = None) -> Tensor:
    """`clip(floor((x + other) / divisor), lo, hi)`: what a right shift and a saturation compute.

    Args:
        divisor: 2^n for a shift by n bits.
        other: what is added first, of the same shape.
    """
    return _quantise(x, other, divisor, 0.0, lo, hi)


def sign_through(x: Tensor) -> Tensor:
    """-1 or 1, 1 at zero; with the gradient of the identity where `|x| <= 1` (Hubara et al., 2016)."""
    signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    window = x.clamp(-1, 1)
    return signs + (window - window.detach()) if _differentiates(x) else signs


def integers_of(ratio: Tensor, qrange: QRange) -> Tensor:
    """The integers of a range nearest to `x / s`, of any shape, with straight-through gradients."""
    return sign_through(ratio) if qrange.step == 2 else round_clip(ratio, qrange.lo, qrange.hi)


def round_through(x: Tensor) -> Tensor:
    """`floor(x + 1/2)`, with the gradient of the identity."""
    return _Round.apply(x)  # type: ignore[no-untyped-call, no-any-return]


class _Convert(Function):
    """`kernels.convert`, with a gradient."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, slope: Tensor, offset: Tensor, lo: int, hi: int, shift: Shift | None, noise: Noise | None
    ) -> Tensor:
        y, code = kernels.convert(v, slope, offset, lo, hi, shift, noise)
        ctx.save_for_backward(code, slope)
        ctx.shift, ctx.noise = shift, noise
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        code, slope = ctx.saved_tensors
        return *kernels.convert_backward(grads[0], code, slope, ctx.shift, ctx.noise), None, None, None, None


def convert(
    v: Tensor, slope: Tensor, offset: Tensor, lo: int, hi: int, shift: Shift | None = None, noise: Noise | None = None
) -> Tensor:
    """`offset + clip(floor(v), lo, hi) * slope` per channel, then the shift if there is one.

    Gradients are straight-through, zero where the converter or the shift clips.

    Args:
        v: (N, C, H, W); disturbed first if there is noise.
        slope, offset: (C,).
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (v, slope, offset)):
        return _Convert.apply(v, slope, offset, lo, hi, shift, noise)  # type: ignore[no-untyped-call, no-any-return]
    return kernels.convert(v, slope, offset, lo, hi, shift, noise)[0]
