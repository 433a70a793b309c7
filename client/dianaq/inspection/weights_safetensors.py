"""Inspection of a safetensors file: 8 bytes with the length of a header, the header as JSON, then the values.

The format: https://huggingface.co/docs/safetensors. The header gives each tensor's `dtype`, `shape` and
`data_offsets`, the first byte and the one after the last within the values; together they cover the values once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from dianaq.errors import InvalidModel
from dianaq.schemas.resources import WeightsInfo

MAX_HEADER_BYTES = 2**20
"""A tensor takes some 100 bytes of it, and the deepest network of the zoo has some 300 tensors."""

MAX_DIMENSIONS = 8
"""Convolutions have four; far more only serve to make sizes that are hard to compute."""

CHUNK_BYTES = 2**20
"""Of values looked at at a time: small beside everything else in memory. A multiple of every item size."""

_LENGTH_BYTES = 8
_ITEM_BYTES = {"F32": 4, "I32": 4, "I64": 8}
_COUNTERS = ("I32", "I64")


def inspect_safetensors(path: str | os.PathLike[str]) -> WeightsInfo:
    """What a safetensors file holds; every value was looked at.

    Raises:
        InvalidModel: names the tensor at fault and what would be accepted.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _header(file, size)
        data = file.tell()
        spans = {name: _span(name, entry) for name, entry in header.items()}
        _check_cover(spans, size - data)
        for name, (begin, end) in spans.items():
            if header[name]["dtype"] == "F32":
                file.seek(data + begin)
                _refuse_nonfinite(file, name, end - begin, header[name]["shape"])
    return WeightsInfo(
        format="safetensors",
        tensors=len(header),
        bytes=size - data,
        shapes={name: tuple(entry["shape"]) for name, entry in header.items()},
    )


def _header(file: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
        raise InvalidModel(
            f"the safetensors header has {length:,} bytes by its own account; the file has {size:,}, and at most "
            f"{MAX_HEADER_BYTES:,} are accepted for the header"
        )
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"the safetensors header is not JSON: {str(error)[:200]}") from None
    if not isinstance(header, dict):
        raise InvalidModel("the safetensors header is no mapping from names to tensors")
    header.pop("__metadata__", None)  # free text about the file, which nobody here reads
    if not header:
        raise InvalidModel("the safetensors file holds no tensors")
    return header


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


def _span(name: str, entry: Any) -> tuple[int, int]:
    """First byte of a tensor and the one after its last."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise InvalidModel(f"tensor {name!r} must have dtype, shape and data_offsets", param=name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise InvalidModel(
            f"tensor {name!r} is {dtype!r:.40}; weights must be F32 (float32), counters I32 or I64", param=name
        )
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise InvalidModel(
            f"tensor {name!r} has the shape {shape!r:.80}; it must have at most {MAX_DIMENSIONS} dimensions", param=name
        )
    values = math.prod(shape)
    if dtype in _COUNTERS and values > 1:
        raise InvalidModel(
            f"tensor {name!r} is {dtype} of shape {shape}; weights must be F32 (float32), only counters of one value "
            "may be integers",
            param=name,
        )
    if not _counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != values * _ITEM_BYTES[dtype]:
        raise InvalidModel(
            f"tensor {name!r} has the data_offsets {offsets!r:.80}; {dtype} of shape {shape} takes "
            f"{values * _ITEM_BYTES[dtype]:,} bytes",
            param=name,
        )
    return offsets[0], offsets[1]


def _counts(value: Any) -> bool:
    # bool is an int to Python, and true a number to nobody
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _check_cover(spans: dict[str, tuple[int, int]], size: int) -> None:
    """Every byte of the values belongs to one tensor."""
    reached, before = 0, "the header"
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != reached:
            what = "overlaps" if begin < reached else "leaves a gap after"
            raise InvalidModel(f"tensor {name!r} {what} {before}: it starts at {begin:,}, not {reached:,}", param=name)
        reached, before = end, repr(name)
    if reached != size:
        raise InvalidModel(
            f"the tensors take {reached:,} bytes, but the file holds {size:,}; it is truncated, or has more at its end"
        )


def _refuse_nonfinite(file: BinaryIO, name: str, size: int, shape: list[int]) -> None:
    for start in range(0, size, CHUNK_BYTES):
        values = memoryview(file.read(min(CHUNK_BYTES, size - start))).cast("f")
        # Sums of float32 in double precision do not overflow, so only an infinity or NaN makes one of them.
        if not math.isfinite(sum(values)):
            at = next(i for i, value in enumerate(values) if not math.isfinite(value))
            raise InvalidModel(
                f"tensor {name!r} holds {values[at]} at position {start // 4 + at} of its shape {shape}", param=name
            )
