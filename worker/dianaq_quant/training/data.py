"""A dataset as tensors, and how a raw batch becomes the network's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dianaq.schemas.ranges import QRange
from dianaq_quant.modules.pixels import PixelGrid

EVALUATION_BATCH = 250
"""Samples per batch where nothing is trained: large enough to keep two cores busy, small enough to stay within a
few hundred MB for a 96 x 96 input."""


@dataclass(frozen=True)
class Split:
    """Raw samples and their labels if there are any: class numbers (N,), or a regression's numbers (N, ...).

    Args:
        stored: (M, *input shape), as the file has them: NHWC images are a permuted view.
        rows: which of `stored` are the split's, (N,), in order; all of them without. Splits share what is stored:
            picking copies indices alone.
        mapped: `stored` lies in a file that is mapped into memory. It stays where it is, and batches are copied.
    """

    stored: Tensor
    y: Tensor | None
    rows: Tensor | None = None
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.stored if self.rows is None else self.rows)

    @property
    def x(self) -> Tensor:
        """All samples, (N, *input shape); copied where they are some of those stored."""
        return self.stored if self.rows is None else _take(self.stored, self.rows)

    def gather(self, index: Tensor) -> Tensor:
        """The samples of the given indices, (n,) on the device of `stored`: copied, as they lie in memory there."""
        return _take(self.stored, index if self.rows is None else self.rows[index])

    def pick(self, index: Tensor) -> Split:
        """The split of the samples of the given indices."""
        labels = None if self.y is None else self.y[index.to(self.y.device)]
        index = index.to(self.stored.device)
        return replace(self, y=labels, rows=index if self.rows is None else self.rows[index])

    def normal(self) -> Split:
        """The samples that are not labelled as anomalies (1); all of them without labels."""
        return self if self.y is None else self.pick((self.y != 1).nonzero().flatten())

    def take(self, count: int) -> Split:
        """The first samples."""
        labels = None if self.y is None else self.y[:count]
        if self.rows is None:
            return replace(self, stored=self.stored[:count], y=labels)
        return replace(self, y=labels, rows=self.rows[:count])


def _take(stored: Tensor, index: Tensor) -> Tensor:
    """`stored[index]`, laid out as `stored` is: whole samples are copied, where indexing would go value by value."""
    if stored.dim() == 4 and stored.is_contiguous(memory_format=torch.channels_last):
        return stored.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return stored.index_select(0, index)


@dataclass(frozen=True)
class Normalisation:
    """`input = raw * factor + offset`, per channel; shapes broadcast over a batch."""

    factor: Tensor
    offset: Tensor

    @property
    def device(self) -> torch.device:
        """Where inputs are computed, wherever the raw batch is."""
        return self.factor.device

    def __call__(self, raw: Tensor) -> Tensor:
        """Raw batch to float32 network input, a copy; channels-last in memory, which the CPU kernels prefer."""
        raw = raw.to(self.device)
        if raw.dim() != 4:
            return raw.to(torch.float32) * self.factor + self.offset
        x = torch.empty_like(raw, dtype=torch.float32, memory_format=torch.channels_last).copy_(raw)
        # A line of pixels at a time: a loop over the channels of one alone is too short to be fast.
        factor, offset = (
            values.flatten().expand(raw.shape[1]).repeat(raw.shape[3]) for values in (self.factor, self.offset)
        )
        lines(x).mul_(factor).add_(offset)
        return x


def lines(x: Tensor) -> Tensor:
    """The lines of channels-last maps (N, C, H, W): the same memory as (N, H, W * C)."""
    return x.permute(0, 2, 3, 1).flatten(2)


@dataclass(frozen=True)
class Data:
    """The splits, the normalisation, and the real value of one input integer where the input is a grid of pixels.

    `input_steps` has it for each range that the input may take, if all channels share one step; else it is empty.
    `pixels` is how pixels are normalised, if it is pixels that the exported network takes.

    `held_out` says that `val` was taken out of `train`, where a network that was trained before has seen it.
    `calibration` is a fixed random part of `train`. `test` falls back on `val` for reporting: see `report_split`.
    `needs_labels` says that the task measures nothing on splits without labels.
    """

    train: Split
    val: Split | None
    test: Split | None
    calibration: Split
    normalise: Normalisation
    input_steps: dict[QRange, float]
    held_out: bool = False
    needs_labels: bool = True
    pixels: PixelGrid | None = None

    def part(self, samples: int | None, seed: int) -> Data:
        """With a fixed random part of `train` in its place, if so many samples are fewer."""
        if samples is None or samples >= len(self.train):
            return self
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        return replace(self, train=self.train.pick(order[:samples]))

    def to(self, device: torch.device | str) -> Data:
        """On a device: the normalisation, labels and samples, but for samples that are mapped from a file."""
        moved: dict[int, Tensor] = {}  # splits share what is stored

        def move(split: Split) -> Split:
            labels = None if split.y is None else split.y.to(device)
            if split.mapped:
                return replace(split, y=labels)
            if id(split.stored) not in moved:
                moved[id(split.stored)] = split.stored.to(device)
            rows = None if split.rows is None else split.rows.to(device)
            return replace(split, stored=moved[id(split.stored)], y=labels, rows=rows)

        return replace(
            self,
            train=move(self.train),
            val=None if self.val is None else move(self.val),
            test=None if self.test is None else move(self.test),
            calibration=move(self.calibration),
            normalise=Normalisation(self.normalise.factor.to(device), self.normalise.offset.to(device)),
        )

    @property
    def report_split(self) -> tuple[str, Split] | None:
        """The split on which figures are reported: `test`, else `val`; None where the labels it takes are missing."""
        for name, split in (("test", self.test), ("val", self.val)):
            if split is not None and len(split) and (split.y is not None or not self.needs_labels):
                return name, split
        return None


def batches(split: Split, size: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Consecutive batches of a split, in order."""
    for start in range(0, len(split), size):
        part = slice(start, start + size)
        x = split.stored[part] if split.rows is None else _take(split.stored, split.rows[part])
        yield x, None if split.y is None else split.y[part]
