"""What it takes to feed training, as a share of a plain float training step: shuffled, normalised, augmented batches.

The step is eager float32 in the default memory format: forward, cross-entropy, backward, SGD with momentum. Steps and
batches take turns, so that both see the machine and its caches alike; medians over the rounds. Data are synthetic.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from results import record, table, titled
from step import stepper

from dianaq.schemas.recipe import Training
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.data import Data, Normalisation, Split
from dianaq_quant.training.device import choose_device
from dianaq_quant.training.feed import Feed
from dianaq_quant.zoo import build

BATCH = 128
CLASSES = 10
LIMIT = 3.0
"""Percent of the float step that shuffling, normalising and the usual augmentations may take."""


@dataclass(frozen=True)
class Case:
    """A network of the zoo and synthetic data of the shape that it is trained on.

    Args:
        images: bytes, NHWC; else numbers.
        usual: the augmentations of such data that a recipe asks for.
    """

    shape: tuple[int, int, int]
    samples: int
    width: float
    images: bool
    usual: Mapping[str, Any]

    def data(self) -> Data:
        """As a dataset file has them, and their labels."""
        random = torch.Generator().manual_seed(0)
        channels, height, width = self.shape
        if self.images:
            x = torch.randint(0, 256, (self.samples, height, width, channels), dtype=torch.uint8, generator=random)
            x = x.permute(0, 3, 1, 2)
            scale = torch.tensor([0.016, 0.017, 0.018]).reshape(3, 1, 1)
            normalise = Normalisation(scale, -120 * scale)
        else:
            x = torch.randn(self.samples, *self.shape, generator=random)
            normalise = Normalisation(torch.ones(()), torch.zeros(()))
        split = Split(x, torch.randint(0, CLASSES, (self.samples,), generator=random))
        return Data(split, None, None, split, normalise, {})


PHOTOGRAPHS = {"flip": True, "crop": 0.125}
SPECTROGRAMS = {"time_shift": 0.1, "noise": 0.05}

CASES: Mapping[str, Case] = {
    "resnet8": Case((3, 32, 32), 50_000, 1.0, True, PHOTOGRAPHS),
    "resnet20": Case((3, 32, 32), 50_000, 1.0, True, PHOTOGRAPHS),
    "mobilenet_v1": Case((3, 96, 96), 5_000, 0.25, True, PHOTOGRAPHS),
    "ds_cnn": Case((1, 10, 49), 50_000, 1.0, False, SPECTROGRAMS),
}
"""The shapes of CIFAR-10, of 96 x 96 for MobileNetV1, and of the spectrograms of Speech Commands."""

EVERYTHING = {
    "flip": True,
    "crop": 0.125,
    "rotation": 10,
    "cutout": 0.25,
    "mixup": 0.2,
    "time_shift": 0.1,
    "noise": 0.05,
}
"""All augmentations at once, which nobody would ask for."""

HEADER = ["network", "input", "float step, ms", "usual, ms", "share", "limit", "everything, ms", "share"]


def fed(data: Data, augmentation: Any) -> Iterator[Batch]:
    """Batches without end, epoch after epoch."""
    feed = Feed(data, Training.model_validate({"batch_size": BATCH, "augmentation": augmentation}), seed=0)
    return (batch for epoch in count(1) for batch in feed.epoch(epoch))


def measure(name: str, case: Case, rounds: int, device: torch.device) -> list[float]:
    """Medians in ms of a network's step, of a batch augmented as usual, and of one with everything on."""
    data = case.data().to(device)
    usual, everything = fed(data, case.usual), fed(data, EVERYTHING)
    network = build(name, input_shape=case.shape, classes=CLASSES, width=case.width).to(device).train()
    batch = next(usual)
    assert batch.labels is not None
    step = stepper(network, batch.x.contiguous(), batch.labels)
    timed: list[Callable[[], object]] = [step, lambda: next(usual), lambda: next(everything)]
    times: list[list[float]] = [[] for _ in timed]
    for round_ in range(rounds + 2):  # the first two warm up
        for action, taken in zip(timed, times, strict=True):
            start = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_ >= 2:
                taken.append(1000 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def main() -> int:
    """Measure, print and, if asked to, record; 1 if a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="steps and batches of each kind (default: 20)")
    parser.add_argument("--record", action="store_true", help="write the table into RESULTS.md")
    args = parser.parse_args()
    device = choose_device()
    rows, missed = [], False
    for name, case in CASES.items():
        step, usual, everything = measure(name, case, args.rounds, device)
        share = 100 * usual / step
        missed |= share > LIMIT
        limit = f"{LIMIT:g} % {'MISSED' if share > LIMIT else 'met'}"
        times = [f"{step:.1f}", f"{usual:.2f}", f"{share:.1f} %", limit]
        shape = " x ".join(map(str, case.shape))
        rows.append(
            [name, f"{case.samples:,} of {shape}", *times, f"{everything:.2f}", f"{100 * everything / step:.1f} %"]
        )
    text = table(HEADER, rows)
    print(text)
    if args.record:
        about = f"Batch {BATCH}; medians of {args.rounds} rounds in which steps and batches take turns. Usual: "
        about += f"{' and '.join(PHOTOGRAPHS)} for photographs, {' and '.join(SPECTROGRAMS)} for spectrograms."
        record(titled("Data path", device), f"{about} Everything: {', '.join(EVERYTHING)}.\n\n{text}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
