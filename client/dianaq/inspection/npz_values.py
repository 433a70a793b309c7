"""The values of a stored array, chunk by chunk."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dianaq.errors import InvalidDataset
from dianaq.inspection.npz import Array

CHUNK_BYTES = 2**20
"""Large enough that numpy's cost per call vanishes, small beside everything else in memory."""


def chunks(archive: zipfile.ZipFile, array: Array) -> Iterator[tuple[int, NDArray[Any]]]:
    """Runs of stored values with the position of their first one. Reading to the end checks the zip's CRC.

    Raises:
        InvalidDataset: the member ends before the array does.
    """
    step = CHUNK_BYTES // array.dtype.itemsize
    with archive.open(array.member) as stream:
        stream.read(array.header_bytes)
        for start in range(0, array.size, step):
            count = min(step, array.size - start)
            data = stream.read(count * array.dtype.itemsize)
            if len(data) != count * array.dtype.itemsize:
                raise InvalidDataset(f"{array.name} is truncated", param=array.name)
            yield start, np.frombuffer(data, array.dtype)
        stream.read(1)


def index_of(array: Array, position: int) -> list[int]:
    """The index of the value at a position in the file."""
    order = "F" if array.fortran_order else "C"
    return [int(i) for i in np.unravel_index(position, array.shape, order=order)]  # type: ignore[call-overload]


def refuse_nonfinite(archive: zipfile.ZipFile, array: Array) -> None:
    """Read samples to their end.

    Raises:
        InvalidDataset: names the index of the first NaN or infinity.
    """
    for start, values in chunks(archive, array):
        if values.dtype.kind != "f":
            continue
        finite = np.isfinite(values)
        if not finite.all():
            at = int(np.argmin(finite))
            raise InvalidDataset(
                f"{array.name} holds {values[at]} at {index_of(array, start + at)}; samples must be finite",
                param=array.name,
            )
