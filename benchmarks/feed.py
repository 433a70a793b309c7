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
from itertools import count
from typing import Any

import torch
from results import record, table
from step import stepper

from dianaq.recipe import Training
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.data import Data, Normalisation, Split
from dianaq_quant.training.feed import Feed
from dianaq_quant.zoo import build

BATCH = 128
CLASSES = 10
LIMIT = 3.0
"""Percent of the float step that shuffling, normalising, flips and crops may take."""

NETWORKS: Mapping[str, tuple[int, int, float]] = {
    "resnet8": (32, 50_000, 1.0),
    "resnet20": (32, 50_000, 1.0),
    "mobilenet_v1": (96, 5_000, 0.25),
}
"""Side of the images, how many there are, and the network's width: CIFAR-10's shapes, and 96 x 96 for MobileNetV1."""

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

HEADER = ["network", "input", "float step, ms", "flip and crop, ms", "share", "everything, ms", "share", "limit"]


def stored(side: int, images: int) -> Data:
    """Bytes as a dataset file has them, NHWC, and their labels."""
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8, generator=random).permute(0, 3, 1, 2)
    split = Split(x, torch.randint(0, CLASSES, (images,), generator=random))
    scale = torch.tensor([0.016, 0.017, 0.018]).reshape(3, 1, 1)
    return Data(split, None, None, split, Normalisation(scale, -120 * scale), {})


def fed(data: Data, augmentation: Any) -> Iterator[Batch]:
    """Batches without end, epoch after epoch."""
    feed = Feed(data, Training.model_validate({"batch_size": BATCH, "augmentation": augmentation}), seed=0)
    return (batch for epoch in count(1) for batch in feed.epoch(epoch))


def measure(name: str, rounds: int) -> list[float]:
    """Medians in ms of a network's step, of a batch that is flipped and cropped, and of one with everything on."""
    side, images, width = NETWORKS[name]
    data = stored(side, images)
    plain, everything = fed(data, "flip_crop"), fed(data, EVERYTHING)
    network = build(name, input_shape=(3, side, side), classes=CLASSES, width=width).train()
    batch = next(plain)
    assert batch.labels is not None
    step = stepper(network, batch.x.contiguous(), batch.labels)
    timed: list[Callable[[], object]] = [step, lambda: next(plain), lambda: next(everything)]
    times: list[list[float]] = [[] for _ in timed]
    for round_ in range(rounds + 2):  # the first two warm up
        for action, taken in zip(timed, times, strict=True):
            start = time.perf_counter()
            action()
            if round_ >= 2:
                taken.append(1000 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def main() -> int:
    """Measure, print and, if asked to, record; 1 if a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="steps and batches of each kind (default: 20)")
    parser.add_argument("--record", action="store_true", help="write the table into RESULTS.md")
    args = parser.parse_args()
    rows, missed = [], False
    for name, (side, images, _) in NETWORKS.items():
        step, plain, everything = measure(name, args.rounds)
        share = 100 * plain / step
        missed |= share > LIMIT
        limit = f"{LIMIT:g} %" + (" MISSED" if share > LIMIT else "")
        cells = [
            f"{step:.1f}",
            f"{plain:.2f}",
            f"{share:.1f} %",
            f"{everything:.2f}",
            f"{100 * everything / step:.1f} %",
        ]
        rows.append([name, f"{images:,} x {side} x {side} x 3", *cells, limit])
    text = table(HEADER, rows)
    print(text)
    if args.record:
        about = f"Batch {BATCH}; medians of {args.rounds} rounds in which steps and batches take turns."
        record("Data path", f"{about} Everything: {', '.join(EVERYTHING)}.\n\n{text}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
