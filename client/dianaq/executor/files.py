"""Arrays in files: numpy's format, and the text form of DORY's golden files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dianaq.errors import InvalidDataset

_BYTE_VALUES = (-128, 255)
"""What a line of a text file may say: an int8, or its byte."""


def is_text(path: str | os.PathLike[str]) -> bool:
    """Whether a file is in the text form, by its name."""
    return Path(path).suffix == ".txt"


def read_input(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array of a `.npy` file, or the int8 values of a `.txt` file, flat.

    In the text form a value is on each line, with a comma behind it, and lines that begin with `#` are comments. Bytes
    from 128 on stand for negative values: `byte = value & 0xFF`.

    Raises:
        InvalidDataset: the file is missing or not in its form.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidDataset(f"there is no file {path}")
    if is_text(path):
        return _read_text(path)
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidDataset(f"{path.name} is no .npy file (a text file is told by its name, .txt): {error}") from None
    if not isinstance(found, np.ndarray):
        raise InvalidDataset(f"{path.name} holds several arrays; accepted is a .npy file of one")
    return found


def _read_text(path: Path) -> NDArray[Any]:
    found = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        text = line.strip().removesuffix(",").strip()
        if not text or text.startswith("#"):
            continue
        value = int(text) if re.fullmatch(r"-?[0-9]{1,3}", text) else None
        if value is None or not _BYTE_VALUES[0] <= value <= _BYTE_VALUES[1]:
            raise InvalidDataset(f"{path.name}, line {number}: {text[:40]!r} is no byte; accepted are -128 to 255")
        found.append(value - 256 if value > 127 else value)
    return np.array(found, np.int32)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """A `.npy` file of exactly this name."""
    with path.open("wb") as file:  # numpy would append .npy to a name without it
        np.save(file, array)


def file_name(index: int, tensor: str) -> str:
    """A file's name for a tensor: in order of computation, and with characters that every file system takes."""
    return f"{index:04d}_{re.sub('[^A-Za-z0-9_.-]', '.', tensor)}.npy"
