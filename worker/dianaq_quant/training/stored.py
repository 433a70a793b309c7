"""The arrays of an npz file: in memory, or mapped from the file where they are large."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from dianaq.inspection.dataset import KEYS
from dianaq.inspection.npz import Array, read_headers

MAPPED_BEYOND = 2**30
"""Bytes of a split's samples that a job holds in memory: six times CIFAR-10, so that the jobs of a machine with a few
GB for each all fit. More stay in the file, of which the system keeps in memory what it has room for."""

_LOCAL_HEADER = struct.Struct("<26xHH")
"""What a zip archive has in front of a member: 26 bytes that the directory repeats, then the lengths of the name and
the extra field that follow (PKWARE, APPNOTE.TXT, section 4.3.7)."""


def read_arrays(path: Path, budget: int = MAPPED_BEYOND) -> tuple[dict[str, np.ndarray], frozenset[str]]:
    """The arrays of an inspected npz file, and the names of those that are mapped.

    Samples (`x_...`) of more bytes than the budget are mapped: where they lie, if they are stored as they are; else
    from a copy without a name beside the file, which is gone with the array.
    """
    found, mapped = {}, set()
    with zipfile.ZipFile(path) as archive:
        for name, array in read_headers(archive, accepted=KEYS).items():
            if name.startswith("x_") and array.size * array.dtype.itemsize > budget:
                mapped.add(name)
                found[name] = _mapped(path, archive, array)
            else:
                with archive.open(array.member) as stream:
                    found[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return found, frozenset(mapped)


def _mapped(path: Path, archive: zipfile.ZipFile, array: Array) -> np.ndarray:
    with _plain_file(path, archive, array) as (file, start):
        found: np.ndarray = np.memmap(
            file,
            dtype=array.dtype,
            mode="c",  # copy on write: torch warns of an array that must not be written to
            offset=start + array.header_bytes,
            shape=array.shape,
            order="F" if array.fortran_order else "C",
        )
        return found


@contextmanager
def _plain_file(path: Path, archive: zipfile.ZipFile, array: Array) -> Iterator[tuple[IO[bytes], int]]:
    """A file that has the array's member uncompressed, its values on multiples of their size; and where it starts."""
    info = archive.getinfo(array.member)
    with path.open("rb") as file:
        file.seek(info.header_offset)
        start = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
        aligned = (start + array.header_bytes) % array.dtype.itemsize == 0
        if info.compress_type == zipfile.ZIP_STORED and aligned:
            yield file, start
            return
    folder = path.parent if os.access(path.parent, os.W_OK) else None
    with tempfile.TemporaryFile(dir=folder) as copy:
        with archive.open(info) as stream:
            shutil.copyfileobj(stream, copy, 2**20)
        copy.flush()
        yield copy, 0
