"""The directory of an npz file and the headers of its arrays, read without allocating any array."""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dianaq.errors import InvalidDataset

MAX_BYTES = 4 * 2**30
"""A job holds the dataset in memory as it is stored, or maps it; 4 GiB are 26 times CIFAR-10."""

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Versions of the npy format. Version 3 differs only in field names beyond ASCII, and fields are refused."""

_BAD_HEADER = (ValueError, SyntaxError, tokenize.TokenError, RecursionError)
"""What numpy raises for a header that is no dictionary of plain values."""


@dataclass(frozen=True)
class Array:
    """One array of the file: where its values start in its member, and how they lie there."""

    name: str
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran_order: bool
    header_bytes: int

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_headers(archive: zipfile.ZipFile, accepted: Sequence[str]) -> dict[str, Array]:
    """The arrays of an npz file by name, in the order of `accepted`.

    Raises:
        InvalidDataset: an unknown or repeated name, an object array, or a size that the file does not hold.
    """
    found: dict[str, Array] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name not in accepted or name == info.filename:
            raise InvalidDataset(
                f"the file holds {name!r}, which is not known; accepted are {', '.join(accepted)}", param=name
            )
        if name in found:
            raise InvalidDataset(f"the file holds {name} twice", param=name)
        found[name] = _read_header(archive, info, name)
    total = sum(array.size * array.dtype.itemsize for array in found.values())
    if total > MAX_BYTES:
        raise InvalidDataset(f"the arrays take {total:,} bytes; at most {MAX_BYTES:,} are accepted")
    return {name: found[name] for name in accepted if name in found}


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Array:
    with archive.open(info) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            if version not in _READ_HEADER:
                raise ValueError(f"npy format {version[0]}.{version[1]} is not known")
            shape, fortran_order, dtype = _READ_HEADER[version](stream)
        except _BAD_HEADER as error:
            raise InvalidDataset(f"{name} is not a readable npy array: {error}", param=name) from None
        header_bytes = stream.tell()
    if dtype.hasobject:
        raise InvalidDataset(
            f"{name} is an array of Python objects, which would have to be unpickled; store numbers", param=name
        )
    array = Array(name, info.filename, shape, dtype, fortran_order, header_bytes)
    declared = array.size * dtype.itemsize
    if any(length < 0 for length in shape) or header_bytes + declared != info.file_size:
        raise InvalidDataset(
            f"{name} declares the shape {shape} of {dtype}, {declared:,} bytes, but {info.file_size - header_bytes:,} "
            "bytes are stored",
            param=name,
        )
    return array
