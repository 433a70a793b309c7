"""How scales, and free offsets, follow from what observers have seen.

Everything here is per slice: statistics and scales have the shape (S,), with S = 1 for a whole array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dianaq.schemas.quantisers import InitStrategy
from dianaq.schemas.ranges import QRange
from dianaq_quant.quantisers.functions import integers_of
from dianaq_quant.quantisers.observer import Observer, slices

PERCENTILE = 99.99
"""Percentage that the `percentile` strategy represents without clipping, unless the recipe says another."""

N_STD = 3.0
"""Standard deviations on either side of the mean that the `meanstd` strategy represents, unless the recipe says so."""

OCTAVES = 5
"""How far below the `minmax` scale the `mse` strategy looks, in powers of two: clipping at 1/32 of the largest
value is worse for every distribution met in trained networks."""

STEPS_PER_OCTAVE = 8
"""Resolution of the `mse` search where the scale need not be a power of two: steps of 9 %."""

TERNARY_THRESHOLD = 0.7
"""Ternary weights are those beyond 0.7 times the mean magnitude (Li et al., 2016, "Ternary Weight Networks")."""


@dataclass(frozen=True)
class Seen:
    """What is known of a tensor that is to be quantised, and the integers that are to represent it.

    `lo`, `hi`, `mean`, `std` are (S,), `sample` is (S, n).
    """

    lo: Tensor
    hi: Tensor
    mean: Tensor
    std: Tensor
    sample: Tensor
    qrange: QRange

    @classmethod
    def by(cls, observer: Observer, qrange: QRange) -> Seen:
        """What an observer has seen.

        Raises:
            RuntimeError: it has seen nothing.
        """
        std = observer.variance.sqrt()
        return cls(observer.lo, observer.hi, observer.mean, std, observer.sample, qrange)

    @classmethod
    def of(cls, tensor: Tensor, qrange: QRange, dimensions: tuple[int, ...] = ()) -> Seen:
        """All of a tensor that is at hand, as a weight is."""
        observer = Observer(dimensions)
        observer.observe(tensor)
        return cls.by(observer, qrange)

    def interval(self, strategy: InitStrategy) -> tuple[Tensor, Tensor]:
        """The ends of what a strategy wants represented, per slice."""
        if strategy.strategy == "const":
            assert strategy.a is not None
            assert strategy.b is not None
            return torch.full_like(self.lo, strategy.a), torch.full_like(self.hi, strategy.b)
        if strategy.strategy == "meanstd":
            reach = (strategy.n_std or N_STD) * self.std
            return self.mean - reach, self.mean + reach
        if strategy.strategy == "percentile":
            return self._percentile((strategy.percentile or PERCENTILE) / 100)
        return self.lo, self.hi

    def _percentile(self, part: float) -> tuple[Tensor, Tensor]:
        """The interval that holds a part of the magnitudes on either side."""
        n = self.sample.shape[1]
        rank = min(n, max(1, math.ceil(part * n)))
        negative, positive = (self.sample * sign for sign in (-1, 1))
        lo, hi = (x.clamp(min=0).kthvalue(rank, dim=1).values.double() for x in (negative, positive))
        # Where next to nothing is not zero, the extremes are represented: the percentiles are zero.
        empty = (lo <= 0) & (hi <= 0)
        return torch.where(empty, self.lo, -lo), torch.where(empty, self.hi, hi)

    def error(self, scale: Tensor) -> Tensor:
        """Mean squared error of the sample under fake quantisation, per slice; a range that starts at 0 is
        compared after the ReLU."""
        target = self.sample if self.qrange.lo < 0 else self.sample.clamp(min=0)
        step = scale.to(target.dtype).unsqueeze(1)
        quantised = integers_of(target / step, self.qrange).mul_(step)
        return (quantised - target).square_().mean(1, dtype=torch.float64)


def choose_scales(seen: Sequence[Seen], strategy: InitStrategy, *, base: float | None = None) -> Tensor:
    """The scales of one tensor, or of several that share them.

    Args:
        seen: what is known of each tensor; all have the same number of slices S, and none has a free offset.
        strategy: how the represented interval follows from the statistics.
        base: if given, a scale is `base * 2^k` with integer k (rounded up, so that nothing that the strategy
            would represent is clipped; `mse` takes the best k); otherwise any positive number.

    Returns:
        Positive scales, float64 (S,); `base` (or 1) for slices of zeros.
    """
    limit = torch.stack([_need(*s.interval(strategy), s.qrange) for s in seen]).amax(0)
    usable = (limit > 0) & torch.isfinite(limit)
    limit = torch.where(usable, limit, torch.ones_like(limit))
    if base is not None:
        limit = base * torch.exp2(torch.ceil(torch.log2(limit / base) - 1e-9))
    if strategy.strategy == "mse":
        per_octave = 1 if base is not None else STEPS_PER_OCTAVE
        steps = OCTAVES + 1 if base is not None else OCTAVES * STEPS_PER_OCTAVE
        candidates = torch.stack([limit * math.exp2(-i / per_octave) for i in range(steps)])
        errors = torch.stack([torch.stack([s.error(c) for s in seen]).sum(0) for c in candidates])
        limit = candidates.gather(0, errors.argmin(0, keepdim=True)).squeeze(0)
    return torch.where(usable, limit, torch.full_like(limit, base or 1.0))


def choose_scale(seen: Sequence[Seen], strategy: InitStrategy, *, base: float | None = None) -> float:
    """The scale of whole arrays: see `choose_scales`."""
    return float(choose_scales(seen, strategy, base=base))


def choose_offset(seen: Seen, strategy: InitStrategy) -> QRange:
    """The range with its free offset fixed: as many integers, starting where the interval starts.

    Of the two integers beside `a / s`, `s = (b - a) / (n - 1)`, the one at which the range covers [a, b] with the
    smaller scale: rounding to the nearer one can cost half of the precision, where it is -1. The offset is 0 only where
    what lies below is less than half a step. Zero is always represented.
    """
    steps = seen.qrange.levels - 1
    a, b = (float(end) for end in seen.interval(strategy))
    a, b = min(a, 0.0), max(b, 0.0)
    if a == b:
        return seen.qrange.starting_at(-(seen.qrange.levels // 2))
    exact = a / (b - a) * steps

    def scale(start: int) -> float:
        above = b / (start + steps) if start > -steps else math.inf if b else 0.0
        below = a / start if start else 0.0 if -a <= b / steps / 2 else math.inf
        return max(above, below)

    return seen.qrange.starting_at(min(math.floor(exact), math.ceil(exact), key=scale))


def ternary_scale(weight: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """The mean magnitude of what exceeds `0.7 mean|w|`, per slice, float64 (S,) (Li et al., 2016)."""
    magnitudes = slices(weight.detach(), dimensions).abs().double()
    beyond = magnitudes > TERNARY_THRESHOLD * magnitudes.mean(1, keepdim=True)
    scale = (magnitudes * beyond).sum(1) / beyond.sum(1).clamp(min=1)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def binary_scale(weight: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """The mean magnitude per slice, float64 (S,): least squares for signs (Rastegari et al., 2016, equation 6)."""
    scale = slices(weight.detach(), dimensions).abs().double().mean(1)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _need(a: Tensor, b: Tensor, qrange: QRange) -> Tensor:
    """The smallest scale at which the range covers the interval [a, b], on either side that it has."""
    up = b.clamp(min=0) / qrange.hi if qrange.hi > 0 else torch.zeros_like(b)
    return torch.maximum(up, a.clamp(max=0) / qrange.lo) if qrange.lo < 0 else up
