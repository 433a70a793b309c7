"""Inspection of an npz file: its directory and headers first, then its values in chunks, never a whole array."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from dianaq.errors import InvalidDataset
from dianaq.inspection.npz import MAX_BYTES, Array, read_headers
from dianaq.inspection.npz_labels import Labels, check_labels, read_labels
from dianaq.inspection.npz_values import refuse_nonfinite
from dianaq.schemas.resources import DatasetInfo, SplitInfo

SPLITS = ("train", "val", "test")
KEYS = tuple(f"{axis}_{split}" for split in SPLITS for axis in "xy")

_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for damaged, encrypted or unusually compressed members."""


def inspect_dataset(path: str | os.PathLike[str]) -> DatasetInfo:
    """What an npz file holds, once everything about it that does not need a model was checked.

    Accepted are `x_train` and optionally `y_train`, `x_val`, `y_val`, `x_test`, `y_test`: samples as uint8 images
    (NHWC, NCHW, or NHW with one channel) or float32 of any shape, labels as integers, float32 or float64 of any shape
    (N, ...): which of these a job takes follows from its task (`check_fit`).

    Raises:
        InvalidDataset: names the array, the offending type, shape or position, and what would be accepted.
    """
    try:
        size = Path(path).stat().st_size
        if size == 0:
            raise InvalidDataset("the dataset file is empty")
        if size > MAX_BYTES:
            raise InvalidDataset(f"the dataset has {size:,} bytes; at most {MAX_BYTES:,} are accepted")
        with zipfile.ZipFile(path) as archive:
            arrays = read_headers(archive, accepted=KEYS)
            _check_arrays(arrays)
            labels: dict[str, Labels] = {}
            for name, array in arrays.items():
                if name.startswith("x_"):
                    refuse_nonfinite(archive, array)
                else:
                    labels[name] = read_labels(archive, array)
    except OSError as error:
        raise InvalidDataset(f"the dataset file cannot be read: {error.strerror or error}") from None
    except _BROKEN_ZIP as error:
        raise InvalidDataset(f"the file is not an npz archive, or it is damaged or truncated: {error}") from None
    splits = {}
    for split in SPLITS:
        if f"x_{split}" in arrays:
            x, y = arrays[f"x_{split}"], arrays.get(f"y_{split}")
            found = labels.get(f"y_{split}")
            splits[split] = SplitInfo(
                samples=x.shape[0],
                sample_shape=x.shape[1:],
                dtype=x.dtype.name,
                label_min=None if found is None else found.low,
                label_max=None if found is None else found.high,
                label_dtype=None if y is None else y.dtype.name,
                label_shape=None if y is None else y.shape[1:],
                label_kind=None if found is None else found.kind,
            )
    return DatasetInfo(splits=splits)


def _check_arrays(arrays: Mapping[str, Array]) -> None:
    if "x_train" not in arrays:
        raise InvalidDataset(f"the array x_train is missing; found {', '.join(arrays) or 'no array'}", param="x_train")
    for name, array in arrays.items():
        _check_samples(array) if name.startswith("x_") else check_labels(array, arrays)
    train = arrays["x_train"]
    for split in SPLITS[1:]:
        other = arrays.get(f"x_{split}", train)
        if (other.shape[1:], other.dtype) != (train.shape[1:], train.dtype):
            raise InvalidDataset(
                f"x_{split} holds {other.dtype} samples of shape {other.shape[1:]}, x_train {train.dtype} samples of "
                f"shape {train.shape[1:]}; they must be the same",
                param=f"x_{split}",
            )


def _check_samples(array: Array) -> None:
    name, dtype, shape = array.name, array.dtype, array.shape
    if dtype not in ("uint8", "float32"):
        hint = f"; convert it with {name}.astype('float32')" if dtype.kind in "fiu" else ""
        raise InvalidDataset(
            f"{name} is {dtype.str if dtype.kind == 'f' and dtype.itemsize == 4 else dtype}; samples must be uint8 "
            f"images or float32{hint}",
            param=name,
        )
    if len(shape) < 2:
        raise InvalidDataset(f"{name} has the shape {shape}; it must be (samples, ...)", param=name)
    if dtype == "uint8" and len(shape) > 4:
        raise InvalidDataset(
            f"{name} has the shape {shape}; uint8 images must be NHWC, NCHW or NHW (float32 may have any shape)",
            param=name,
        )
    if 0 in shape:
        raise InvalidDataset(f"{name} is empty: its shape is {shape}", param=name)
