"""A training batch, as the feed gives it and the loss takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """What the inputs of a batch were mixed with: other samples of it.

    Args:
        labels: those of the other samples, (N,); None where there are none.
        shares: what is left of each sample itself, (N,) in 0..1; the rest is the other's.
    """

    labels: Tensor | None
    shares: Tensor


@dataclass(frozen=True)
class Batch:
    """Network inputs (N, ...), normalised and augmented, with their labels (N,) if there are any."""

    x: Tensor
    labels: Tensor | None
    mixed: Mixture | None = None
