"""How a scale follows from observed values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dianaq.ranges import InitStrategy, QRange

PERCENTILE = 0.9999
"""Part of the magnitudes that the `percentile` strategy represents without clipping (the value in common use for
8-bit activations, e.g. Wu et al., 2020)."""

OCTAVES = 5
"""How far below the `minmax` scale the `mse` strategy looks, in powers of two: clipping at 1/32 of the largest
value is worse for every distribution met in trained networks."""

STEPS_PER_OCTAVE = 8
"""Resolution of the `mse` search where the scale need not be a power of two: steps of 9 %."""

Seen = tuple[Tensor, QRange]
"""A sample of a tensor, and the integer range that is to represent it."""


def choose_scale(seen: Sequence[Seen], strategy: InitStrategy, *, base: float | None = None) -> float:
    """One scale for one or several tensors.

    Args:
        seen: a sample and a range per tensor that will share the scale.
        strategy: `minmax`, `percentile` or `mse`.
        base: if given, the scale is `base * 2^k` with integer k (rounded up, so that nothing that the strategy
            would represent is clipped; `mse` takes the best k); otherwise any positive number.

    Returns:
        The scale; `base` (or 1) when all values are zero.
    """
    limit = max(_reach(sample, qrange, 1.0) for sample, qrange in seen)
    if limit <= 0 or not math.isfinite(limit):
        return base or 1.0
    if strategy == "percentile":
        limit = max(_reach(sample, qrange, PERCENTILE) for sample, qrange in seen) or limit
    if strategy != "mse":
        return limit if base is None else base * math.exp2(math.ceil(math.log2(limit / base) - 1e-9))
    if base is None:
        candidates = [limit * math.exp2(-i / STEPS_PER_OCTAVE) for i in range(OCTAVES * STEPS_PER_OCTAVE)]
    else:
        top = math.ceil(math.log2(limit / base) - 1e-9)
        candidates = [base * math.exp2(top - i) for i in range(OCTAVES + 1)]
    errors = [sum(squared_error(sample, qrange, s) for sample, qrange in seen) for s in candidates]
    return candidates[errors.index(min(errors))]


def squared_error(sample: Tensor, qrange: QRange, scale: float) -> float:
    """Mean squared error of a sample under fake quantisation; a rectified range is compared after the ReLU."""
    target = sample if qrange.lo < 0 else sample.clamp(min=0)
    quantised = torch.floor(target / scale + 0.5).clamp_(qrange.lo, qrange.hi).mul_(scale)
    return float((quantised - target).square_().mean())


def _reach(sample: Tensor, qrange: QRange, part: float) -> float:
    """The smallest scale at which the range covers the given part of the sample, on either side."""
    up = sample.clamp(min=0) / qrange.hi
    need = up if qrange.lo >= 0 else torch.maximum(up, sample.clamp(max=0) / qrange.lo)
    if part >= 1.0:
        return float(need.max())
    rank = min(len(need), max(1, math.ceil(part * len(need))))
    return float(need.kthvalue(rank).values)
