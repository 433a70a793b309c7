"""A dataset as tensors in memory, and how a raw batch becomes the network's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dianaq.errors import InvalidDataset
from dianaq.inspection.fit import input_layout
from dianaq.ranges import QRange
from dianaq.spec import JobSpec, Preprocessing
from dianaq_quant.modules.pixels import ZERO, PixelGrid
from dianaq_quant.targets.diana import ANALOG_INPUT, INT8
from dianaq_quant.training.tasks import TASKS

EVALUATION_BATCH = 250
"""Samples per batch where nothing is trained: large enough to keep two cores busy, small enough to stay within a
few hundred MB for a 96 x 96 input."""

BELOW_A_STEP = 1 - 2**-16
"""Where pixels lie on the edges of the input's bins, they shall fall to one side however their normalisation was
computed (float32 errors are some 2^-20 of a step): edges that lie a trace closer to zero see to that."""


@dataclass(frozen=True)
class Split:
    """Raw samples (N, *input shape), as stored, and their labels (N,) if there are any."""

    x: Tensor
    y: Tensor | None

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, index: Tensor) -> Split:
        """The samples of the given indices, copied."""
        return Split(self.x[index], None if self.y is None else self.y[index])

    def normal(self) -> Split:
        """The samples that are not labelled as anomalies (1); all of them without labels."""
        return self if self.y is None else self.pick((self.y != 1).nonzero().flatten())

    def take(self, count: int) -> Split:
        """The first samples."""
        return Split(self.x[:count], None if self.y is None else self.y[:count])


@dataclass(frozen=True)
class Normalisation:
    """`input = raw * factor + offset`, per channel; shapes broadcast over a batch."""

    factor: Tensor
    offset: Tensor

    def __call__(self, raw: Tensor) -> Tensor:
        """Raw batch to float32 network input; channels-last in memory, which the CPU kernels prefer."""
        x = raw.to(torch.float32) * self.factor + self.offset
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


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

    @property
    def report_split(self) -> tuple[str, Split] | None:
        """The split on which figures are reported: `test`, else `val`; None where the labels it takes are missing."""
        for name, split in (("test", self.test), ("val", self.val)):
            if split is not None and len(split) and (split.y is not None or not self.needs_labels):
                return name, split
        return None


def load_data(path: Path, spec: JobSpec, input_shape: tuple[int, ...]) -> Data:
    """Load an inspected dataset for a network of the given input shape (without batch).

    Raises:
        InvalidDataset: `train` is too small to hold validation data out of it, which training needs.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    splits = {
        name: _split(arrays, name, spec.preprocessing, input_shape)
        for name in ("train", "val", "test")
        if f"x_{name}" in arrays
    }
    generator = torch.Generator().manual_seed(spec.recipe.seed)
    train, val = splits["train"], splits.get("val")
    task = TASKS[spec.task]
    if task.labels_anomalies:
        train = train.normal()
    order = torch.randperm(len(train), generator=generator)
    measurable = train.y is not None or not task.needs_labels
    if val is None and len(train) > 1 and (measurable or spec.recipe.trains):
        held_out = min(max(1, round(len(train) * spec.recipe.validation_fraction)), len(train) - 1)
        train, val = train.pick(order[held_out:]), train.pick(order[:held_out])
        order = torch.randperm(len(train), generator=generator)
    if val is None and spec.recipe.trains:
        raise InvalidDataset("x_train has one sample to train on; at least two are needed, or x_val", param="x_train")
    calibration = train.pick(order[: spec.recipe.calibration.samples])
    is_image = arrays["x_train"].dtype == np.uint8
    normalise = _normalisation(spec.preprocessing, input_shape, is_image)
    pixels = _pixel_grid(spec.preprocessing, input_shape) if spec.interface.input == "pixels" else None
    steps = _input_steps(spec.preprocessing, is_image) if pixels is None else {}
    held_out = "val" not in splits
    return Data(train, val, splits.get("test"), calibration, normalise, steps, held_out, task.needs_labels, pixels)


def batches(split: Split, size: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Consecutive slices of a split, in order."""
    for start in range(0, len(split), size):
        part = slice(start, start + size)
        yield split.x[part], None if split.y is None else split.y[part]


def _split(
    arrays: dict[str, np.ndarray], name: str, preprocessing: Preprocessing, input_shape: tuple[int, ...]
) -> Split:
    x, y = arrays[f"x_{name}"], arrays.get(f"y_{name}")
    tensor = torch.from_numpy(x)
    layout = input_layout(tuple(x.shape[1:]), input_shape, preprocessing.layout)
    if layout == "nhwc_to_nchw":
        tensor = tensor.permute(0, 3, 1, 2)
    elif layout == "add_channel":
        tensor = tensor.unsqueeze(1)
    elif layout == "flatten":
        tensor = tensor.flatten(1)
    return Split(tensor, None if y is None else torch.from_numpy(y.astype(np.int64)))


def _value_range(preprocessing: Preprocessing, is_image: bool) -> tuple[float, float]:
    return preprocessing.value_range or ((0.0, 255.0) if is_image else (0.0, 1.0))


def _normalisation(preprocessing: Preprocessing, input_shape: tuple[int, ...], is_image: bool) -> Normalisation:
    """`((x - lo) / (hi - lo) - mean) / std` as one multiplication and one addition."""
    lo, hi = _value_range(preprocessing, is_image)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
    std = torch.tensor(preprocessing.std, dtype=torch.float64)
    factor = 1.0 / ((hi - lo) * std)
    offset = -(lo / (hi - lo) + mean) / std
    shape = (-1, 1, 1) if len(input_shape) == 3 else (-1,)
    return Normalisation(factor.float().reshape(shape), offset.float().reshape(shape))


def _pixel_grid(preprocessing: Preprocessing, input_shape: tuple[int, ...]) -> PixelGrid:
    """`((p - lo) / (hi - lo) - mean) / std` as `step * (p - 128) + origin`, per channel."""
    lo, hi = _value_range(preprocessing, is_image=True)
    mean, std = np.broadcast_arrays(preprocessing.mean, preprocessing.std)
    steps, origins = 1 / ((hi - lo) * std), ((ZERO - lo) / (hi - lo) - mean) / std
    return PixelGrid(tuple(steps.tolist()), tuple(origins.tolist()), len(input_shape) - 1)


def _input_steps(preprocessing: Preprocessing, is_image: bool) -> dict[QRange, float]:
    """The real value of the smallest power-of-two number of pixel steps that maps 0..255 into a range, by range.

    Empty where the stored values are no pixels or the channels' normalisations differ. A range that is symmetric has
    one integer less than the power of two, and clips its darkest pixels by one.
    """
    if not is_image or len(set(preprocessing.mean)) > 1 or len(set(preprocessing.std)) > 1:
        return {}
    lo, hi = _value_range(preprocessing, is_image)
    zero = lo + preprocessing.mean[0] * (hi - lo)  # the pixel value that becomes 0
    found = {}
    for qrange in (INT8, ANALOG_INPUT):
        steps = 1
        while not ((-qrange.hi - 1) * steps <= 0 - zero and 255 - zero < (qrange.hi + 1) * steps):
            steps *= 2
        found[qrange] = steps * BELOW_A_STEP / ((hi - lo) * preprocessing.std[0])
    return found
