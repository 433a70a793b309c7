"""A dataset file as the splits that a job works with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dianaq.errors import InvalidDataset
from dianaq.inspection.fit import input_layout
from dianaq.inspection.interface import Own
from dianaq.schemas.ranges import QRange
from dianaq.schemas.spec import JobSpec, Preprocessing
from dianaq_quant.modules.layout import rearrange
from dianaq_quant.modules.pixels import ZERO, PixelGrid
from dianaq_quant.targets.diana import ANALOG_INPUT, INT8
from dianaq_quant.training.data import Data, Normalisation, Split
from dianaq_quant.training.stored import MAPPED_BEYOND, read_arrays
from dianaq_quant.training.tasks import TASKS

BELOW_A_STEP = 1 - 2**-16
"""Where pixels lie on the edges of the input's bins, they shall fall to one side however their normalisation was
computed (float32 errors are some 2^-20 of a step): edges that lie a trace closer to zero see to that."""

FEWEST_HELD_OUT = 500
"""Validation samples to hold out where there are ten times as many: their accuracy has a standard error of 2.2 points
at most, and the few that a small part of a small dataset would be have a worse one."""


def load_data(
    path: Path,
    spec: JobSpec,
    input_shape: tuple[int, ...],
    own: Own | None = None,
    given: Own | None = None,
    *,
    budget: int = MAPPED_BEYOND,
) -> Data:
    """Load an inspected dataset for a network of the given input shape (without batch).

    Args:
        own, given: the input and the output as the float network had them before its import, where they are others.
        budget: bytes of samples that a split has in memory; with more, they are mapped from the file.

    Raises:
        InvalidDataset: fewer than two samples are left to train on.
    """
    arrays, mapped = read_arrays(path, budget)
    splits = {
        name: _split(arrays, name, spec, input_shape, own, given, f"x_{name}" in mapped)
        for name in ("train", "val", "test")
        if f"x_{name}" in arrays
    }
    generator = torch.Generator().manual_seed(spec.recipe.seed)
    train, val = splits["train"], splits.get("val")
    task = TASKS[spec.task]
    if task.labels_anomalies:
        train = train.normal()
    count = len(train)
    order = torch.randperm(count, generator=generator)
    measurable = train.y is not None or not task.needs_labels
    if val is None and count > 1 and (measurable or spec.recipe.trains):
        wanted = max(1, round(count * spec.recipe.validation_fraction))
        held_out = min(max(wanted, min(FEWEST_HELD_OUT, count // 10)), count - 1)
        train, val = train.pick(order[held_out:]), train.pick(order[:held_out])
        order = torch.randperm(len(train), generator=generator)
    if spec.recipe.trains and len(train) < 2:  # BatchNorm has no variance of one
        raise InvalidDataset(
            f"x_train has {count} sample{'s' * (count != 1)} to train on; at least three are needed, or two and x_val",
            param="x_train",
        )
    calibration = train.pick(order[: spec.recipe.calibration.samples])
    is_image = arrays["x_train"].dtype == np.uint8
    normalise = _normalisation(spec.preprocessing, input_shape, is_image)
    pixels = _pixel_grid(spec.preprocessing, input_shape) if spec.interface.input == "pixels" else None
    steps = _input_steps(spec.preprocessing, is_image) if pixels is None else {}
    held_out = "val" not in splits
    return Data(train, val, splits.get("test"), calibration, normalise, steps, held_out, task.needs_labels, pixels)


def _split(
    arrays: dict[str, np.ndarray],
    name: str,
    spec: JobSpec,
    input_shape: tuple[int, ...],
    own: Own | None,
    given: Own | None,
    mapped: bool,
) -> Split:
    x, y = arrays[f"x_{name}"], arrays.get(f"y_{name}")
    arrangement = input_layout(tuple(x.shape[1:]), input_shape, spec.preprocessing.layout, own)
    tensor = rearrange(torch.from_numpy(x), arrangement)
    if y is None or TASKS[spec.task].imitates:
        return Split(tensor, None, mapped=mapped)
    labels = torch.from_numpy(y.astype(TASKS[spec.task].label_type))
    if given is not None and tuple(labels.shape[1:]) == given.shape:
        labels = rearrange(labels, given.arrangement)
    return Split(tensor, labels, mapped=mapped)


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
