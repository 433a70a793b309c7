"""What a quantiser has seen of a tensor: statistics of its slices, and a bounded sample of their values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLE_LIMIT = 1 << 18
"""Values kept per tensor: 2^18 place the least squared error of an 8-bit quantiser to well under a percent,
at 1 MB each."""

THINNING = 11
"""A step that shares no factor with the sizes of kernels and maps in use meets all of their columns."""


def slices(x: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """The tensor as (slices, values), the slices in row-major order of the dimensions along which they differ.

    Raises:
        ValueError: the tensor lacks one of the dimensions.
    """
    if any(d >= x.dim() for d in dimensions):
        raise ValueError(f"a tensor of shape {tuple(x.shape)} has no dimensions {dimensions}")
    rest = [d for d in range(x.dim()) if d not in dimensions]
    return x.permute(*dimensions, *rest).reshape(math.prod(x.shape[d] for d in dimensions), -1)


class Observer:
    """Minimum, maximum, mean, variance and count of each slice, over any number of batches in any order.

    Args:
        dimensions: those along which slices differ; none for the whole array. `statistics` are of shape (S,), the
            slices in row-major order of these dimensions.

    Mean and variance are taken and merged in float64 (Chan et al., 1983): neither the order of batches nor a mean far
    beyond the standard deviation costs precision. The
    sample is every k-th value, k growing as more is seen, so that all batches weigh the same and no random number
    is drawn.
    """

    def __init__(self, dimensions: tuple[int, ...] = ()) -> None:
        self.dimensions = dimensions
        self.count = 0
        """Values seen per slice."""
        self._lo = self._hi = self._mean = self._squares = torch.empty(0, dtype=torch.float64)
        self._samples: list[Tensor] = []
        self._stride = 1

    def observe(self, x: Tensor) -> None:
        """Take in a tensor; the dimensions along which slices differ must keep their size."""
        values = slices(x.detach(), self.dimensions)
        seen = Observer(self.dimensions)
        seen.count = values.shape[1]
        seen._lo, seen._hi = (v.double() for v in values.aminmax(dim=1))
        variance, seen._mean = torch.var_mean(values.double(), dim=1, correction=0)
        seen._squares = variance * seen.count
        seen._samples, seen._stride = [values[:, :: self._stride].cpu().clone()], self._stride
        self.merge(seen)

    def merge(self, other: Observer) -> None:
        """Take in what another observer of the same slices has seen.

        Raises:
            ValueError: the other observer has seen other slices.
        """
        if not other.count:
            return
        if self.dimensions != other.dimensions or (self.count and self._mean.shape != other._mean.shape):
            raise ValueError(
                f"observers of different slices cannot be merged: {len(self._mean)} along {self.dimensions}, "
                f"{len(other._mean)} along {other.dimensions}"
            )
        if not self.count:
            self._lo, self._hi, self._mean, self._squares = other._lo, other._hi, other._mean, other._squares
        else:
            total, apart = self.count + other.count, other._mean - self._mean
            self._squares = self._squares + other._squares + apart.square() * (self.count * other.count / total)
            self._mean = self._mean + apart * (other.count / total)
            self._lo, self._hi = torch.minimum(self._lo, other._lo), torch.maximum(self._hi, other._hi)
        self.count += other.count
        stride = max(self._stride, other._stride)
        self._samples = self._thinned(stride) + other._thinned(stride)
        self._stride = stride
        while sum(s.numel() for s in self._samples) > SAMPLE_LIMIT and max(s.shape[1] for s in self._samples) > 1:
            self._samples = self._thinned(self._stride * THINNING)
            self._stride *= THINNING

    def _thinned(self, stride: int) -> list[Tensor]:
        return [s[:, :: stride // self._stride] for s in self._samples]

    def _seen(self, statistic: Tensor) -> Tensor:
        if not self.count:
            raise RuntimeError("no forward pass has been observed, so no scale can be chosen")
        return statistic

    @property
    def lo(self) -> Tensor:
        """Smallest value of each slice, float64 (S,)."""
        return self._seen(self._lo)

    @property
    def hi(self) -> Tensor:
        """Largest value of each slice, float64 (S,)."""
        return self._seen(self._hi)

    @property
    def mean(self) -> Tensor:
        """Mean of each slice, float64 (S,)."""
        return self._seen(self._mean)

    @property
    def variance(self) -> Tensor:
        """Variance of each slice (divided by the count), float64 (S,)."""
        return self._seen(self._squares) / max(1, self.count)

    @property
    def sample(self) -> Tensor:
        """A sample of each slice's values, (S, n).

        Raises:
            RuntimeError: nothing has been observed.
        """
        self._seen(self._mean)
        return torch.cat(self._samples, dim=1)
