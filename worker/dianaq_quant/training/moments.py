"""Mean and variance of each of a network's outputs, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Moments:
    """Of values (N, C, ...): count, mean and squared deviations of each channel, over samples and places, in float64.

    Values are taken less the first one of their channel: a channel that never changes has deviations of exactly 0.
    """

    def __init__(self, batches: Iterable[Tensor] = ()) -> None:
        self.count = 0
        self._first, self._sum, self._squares = (torch.zeros(0, dtype=torch.float64) for _ in range(3))
        for values in batches:
            self.add(values)

    def add(self, values: Tensor) -> None:
        """Take a batch up, (N, C, ...) or (N,)."""
        per_channel = values.double().reshape(len(values), values.shape[1] if values.dim() > 1 else 1, -1)
        if not self.count:
            self._first = per_channel[0, :, 0]
            self._sum, self._squares = torch.zeros_like(self._first), torch.zeros_like(self._first)
        apart = per_channel - self._first.unsqueeze(1)
        self.count += per_channel.shape[0] * per_channel.shape[2]
        self._sum += apart.sum((0, 2))
        self._squares += apart.square().sum((0, 2))

    @property
    def mean(self) -> Tensor:
        """(C,)."""
        return self._first + self._sum / self.count

    @property
    def deviations(self) -> Tensor:
        """`sum (value - mean)^2`, (C,)."""
        return (self._squares - self._sum.square() / self.count).clamp(min=0)

    @property
    def std(self) -> Tensor:
        """What differences of the values are divided by to be of the size of 1: the standard deviation, (C,).

        A channel that never changes has that of all channels together; where none does, the size of the values.
        """
        variance = self.deviations / self.count
        found = torch.where(variance > 0, variance, variance.mean()).sqrt()
        size = self.mean.abs().max()
        return torch.where(found > 0, found, size if size > 0 else torch.ones_like(size))
