"""The labels of a dataset: class numbers, or a regression's numbers. Which of them a job takes, its task says later."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dianaq.errors import InvalidDataset
from dianaq.inspection.npz import Array
from dianaq.inspection.npz_values import chunks, index_of
from dianaq.schemas.resources import LabelKind

LARGEST = float(np.finfo(np.float32).max)
"""Labels are compared with a network's outputs, which are float32."""


@dataclass(frozen=True)
class Labels:
    """What the values are; `low` and `high` of integers of shape (samples,) alone."""

    kind: LabelKind
    low: int | None = None
    high: int | None = None


def check_labels(array: Array, arrays: Mapping[str, Array]) -> None:
    """Refuse labels that no task takes, by the header of their array.

    Raises:
        InvalidDataset: labels without samples, of another number than these, or of a type that is no number's.
    """
    name, shape, dtype = array.name, array.shape, array.dtype
    samples = arrays.get(f"x_{name[2:]}")
    if samples is None:
        raise InvalidDataset(f"{name} has no samples x_{name[2:]} beside it", param=name)
    if dtype.kind not in "iu" and not (dtype.kind == "f" and dtype.itemsize in (4, 8)):
        target = "float32" if dtype.kind == "f" else "int64"
        raise InvalidDataset(
            f"{name} is {dtype}; labels must be integers, or float32 or float64 for a regression: convert with "
            f"{name}.astype('{target}')",
            param=name,
        )
    if not shape:
        raise InvalidDataset(
            f"{name} is a single label without a dimension for the samples; labels have the shape (samples, ...): for "
            f"one sample store {name}.reshape(1), and its {samples.name} as (1, ...)",
            param=name,
        )
    if 0 in shape[1:]:
        raise InvalidDataset(f"{name} is empty: its shape is {shape}", param=name)
    if shape[0] != samples.shape[0]:
        hint = f"; if {samples.name} is one sample, store {samples.name}[None]" if shape[0] == 1 else ""
        raise InvalidDataset(
            f"{name} has {shape[0]:,} label{'s' * (shape[0] != 1)} for {samples.shape[0]:,} "
            f"sample{'s' * (samples.shape[0] != 1)} in {samples.name}{hint}",
            param=name,
        )


def read_labels(archive: zipfile.ZipFile, array: Array) -> Labels:
    """Read labels to their end, in chunks.

    Raises:
        InvalidDataset: names the index of the first NaN or infinity, or of what float32 cannot hold.
    """
    is_float = array.dtype.kind == "f"
    whole, rows = True, _OneHot(array) if len(array.shape) == 2 and array.shape[1] > 1 else None
    low, high = [], []
    for start, values in chunks(archive, array):
        if is_float:
            _refuse_beyond_float32(array, start, values)
            whole = whole and bool((values == np.floor(values)).all())
        elif len(array.shape) == 1:
            low.append(int(values.min()))
            high.append(int(values.max()))
        if rows is not None:
            rows.see(start, values)
    if rows is not None and rows.found:
        return Labels("one_hot")
    if is_float:
        return Labels("whole" if whole else "numbers")
    return Labels("integers", min(low), max(high)) if low else Labels("integers")


def _refuse_beyond_float32(array: Array, start: int, values: NDArray[Any]) -> None:
    fits = np.abs(values) <= LARGEST  # false for NaN
    if not fits.all():
        at = int(np.argmin(fits))
        raise InvalidDataset(
            f"{array.name} holds {values[at]} at {index_of(array, start + at)}; labels must be finite, as float32",
            param=array.name,
        )


class _OneHot:
    """Whether every row (of two dimensions) has a single 1 and otherwise zeros, in whatever order the values come."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._ones = np.zeros(array.shape[0], np.uint8)
        self._possible = True

    def see(self, start: int, values: NDArray[Any]) -> None:
        """Take a run of values up; `start` is the position of the first."""
        is_one = values == 1
        if not self._possible or not (is_one | (values == 0)).all():
            self._possible = False
            return
        count, width = self._array.shape
        positions = start + np.flatnonzero(is_one)
        rows = positions % count if self._array.fortran_order else positions // width
        found, times = np.unique(rows, return_counts=True)
        self._possible = bool((times == 1).all() and (self._ones[found] == 0).all())
        self._ones[found] = 1

    @property
    def found(self) -> bool:
        return self._possible and bool(self._ones.all())
