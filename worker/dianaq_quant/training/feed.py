"""What training is fed: shuffled batches, normalised and augmented as tensors on the device of the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from dianaq.schemas.augmentation import Augmentation, extent
from dianaq.schemas.recipe import Training
from dianaq_quant import gaussian
from dianaq_quant.training import augment
from dianaq_quant.training.batch import Batch, Mixture
from dianaq_quant.training.data import Data, Normalisation, Split

A = TypeVar("A")
B = TypeVar("B")

DRAWS = ("flip", "crop_down", "crop_right", "rotation", "cutout_row", "cutout_column", "time_shift")
"""Numbers that are drawn for each sample, whatever is used of them: to switch one augmentation on leaves what the
others do as it was."""


class Feed:
    """The training batches of an iteration, epoch by epoch.

    What an epoch and each of its batches are like depends on the seed, the salt, and their numbers alone, so that a
    training can go on from any of them.

    Args:
        data: `train` is what is fed; batches are on the device of the normalisation.
        settings: of them `batch_size` and `augmentation`.
        salt: tells feeds of the same seed apart, such as the iteration's name.
    """

    def __init__(self, data: Data, settings: Training, seed: int, salt: str = "") -> None:
        self._split, self._normalise = data.train, data.normalise
        self._augmentation = settings.augmentation
        self._root = (seed, salt)
        self.batch_size = min(settings.batch_size, len(data.train))
        self.steps = len(data.train) // self.batch_size
        """Batches of an epoch; a last, smaller one is left out."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the one of number `start` (counted from 0) on."""
        split, device = self._split, self._normalise.device
        order = torch.randperm(len(split), generator=self._generator(number)).to(split.stored.device)
        size, steps = self.batch_size, range(start, self.steps)
        picks = [order[step * size : (step + 1) * size] for step in steps]
        copies = pinned(split, picks, device) if split.mapped and device.type == "cuda" else map(split.gather, picks)
        for step, pick, raw in zip(steps, picks, copies, strict=True):
            labels = None if split.y is None else split.y[pick.to(device)]
            yield augmented(raw, labels, self._augmentation, self._normalise, self._generator(number, step))

    def _generator(self, *numbers: int) -> torch.Generator:
        """A generator of its own for an epoch, or for one of its steps."""
        name = "/".join(map(str, (*self._root, *numbers)))
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def augmented(
    raw: Tensor, labels: Tensor | None, settings: Augmentation, normalise: Normalisation, generator: torch.Generator
) -> Batch:
    """A batch of raw samples (N, *input shape) as the network is fed it.

    Args:
        generator: on the CPU, so that every device sees the same.
    """
    raw = raw.to(normalise.device)
    draws = torch.rand((len(DRAWS), len(raw)), generator=generator)
    noise = torch.randint(gaussian.POOL_SIZE, (len(raw),), generator=generator)
    drawn = dict(zip(DRAWS, draws.to(raw.device), strict=True))
    moves = settings.flip or settings.crop or settings.time_shift
    x = _moved(raw, settings, normalise, drawn) if moves else normalise(raw)
    if settings.rotation:
        x = augment.rotate(x, (2 * drawn["rotation"] - 1) * settings.rotation)
    if settings.cutout:
        height, width = (max(1, extent(settings.cutout, side)) for side in x.shape[2:])
        row = augment.places(drawn["cutout_row"], x.shape[2]) - height // 2
        column = augment.places(drawn["cutout_column"], x.shape[3]) - width // 2
        x = augment.cut_out(x, row, column, (height, width))
    if settings.noise:
        x = augment.disturb(x, settings.noise, noise.to(x.device))
    if not settings.mixup:
        return Batch(x, labels)
    shares = augment.draw_shares(len(x), settings.mixup, generator).to(x.device)
    mixed = Mixture(None if labels is None else augment.partners(labels), shares)
    return Batch(augment.mix(x, shares), labels, mixed)


def _moved(raw: Tensor, settings: Augmentation, normalise: Normalisation, drawn: dict[str, Tensor]) -> Tensor:
    """Mirrored, cropped and shifted in time, all of which move pixels: in one go, before they become numbers."""
    height, width = raw.shape[2:]
    tall, wide, late = extent(settings.crop, height), extent(settings.crop, width), extent(settings.time_shift, width)
    down = augment.spread(drawn["crop_down"], tall)
    right = augment.spread(drawn["crop_right"], wide) + augment.spread(drawn["time_shift"], late)
    mirrored = drawn["flip"] < 0.5 if settings.flip else None
    x = normalise(augment.move(raw, mirrored, down, right, wide + late))
    return augment.clear(x, down, right, (tall, wide + late))


def pinned(split: Split, picks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Raw batches of a mapped split on a GPU; each is read and copied there while the one before is used.

    A thread reads it into pinned memory, from which a stream of its own copies it.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(pick: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            raw = split.gather(pick).pin_memory().to(device, non_blocking=True)
            return raw, stream.record_event()

    for raw, copied in ahead(copy, picks):
        present = torch.cuda.current_stream(device)
        present.wait_event(copied)
        raw.record_stream(present)  # its memory is not the copying stream's to reuse while it is read
        yield raw


def ahead(make: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """As `map`, but a thread makes each result while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        pending: Future[B] | None = None
        for item in items:
            following = thread.submit(make, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
