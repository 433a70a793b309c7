"""A training batch, as the feed gives it and the loss takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """What the inputs of a batch were mixed with: other samples of it.

    Args:
        labels: those of the other samples, (N, ...); None where there are none.
        shares: what is left of each sample itself, (N,) in 0..1; the rest is the other's.
    """

    labels: Tensor | None
    shares: Tensor


@dataclass(frozen=True)
class Batch:
    """Network inputs (N, ...), normalised and augmented, with their labels (N, ...) if there are any."""

    x: Tensor
    labels: Tensor | None
    mixed: Mixture | None = None

    def __len__(self) -> int:
        return len(self.x)

    def split(self, parts: int) -> list[Batch]:
        """As so many batches of about the same size, in order; each sample keeps what it was mixed with."""

        def cut(values: Tensor | None) -> list[Tensor | None]:
            return [None] * parts if values is None else list(values.tensor_split(parts))

        mixtures: list[Mixture | None] = [None] * parts
        if self.mixed is not None:
            pairs = zip(cut(self.mixed.labels), self.mixed.shares.tensor_split(parts), strict=True)
            mixtures = [Mixture(labels, shares) for labels, shares in pairs]
        return [Batch(*part) for part in zip(self.x.tensor_split(parts), cut(self.labels), mixtures, strict=True)]
