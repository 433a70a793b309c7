"""Weights files written byte by byte: good ones, and ones that lie."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from typing import Any

COUNTER = {"dtype": "I64", "shape": [], "data_offsets": [20, 28]}
TENSORS: dict[str, Any] = {
    "conv.weight": {"dtype": "F32", "shape": [2, 1, 1, 2], "data_offsets": [0, 16]},
    "fc.bias": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]},
    "bn.num_batches_tracked": COUNTER,
}
VALUES = struct.pack("<5fq", 1, -2, 0.5, 0, 3e38, 7)

PICKLE = (
    b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00a"
    b"ctorch._utils\n_rebuild_tensor_v2\nctorch\nFloatStorage\n."
)
"""Opcodes in the order of a state dict; it names what a real one names."""

MEMBERS: dict[str, bytes] = {
    "net/data.pkl": PICKLE,
    "net/byteorder": b"little",
    "net/data/0": b"\x00" * 16,
    "net/data/1": b"\x00" * 4,
    "net/version": b"3\n",
    "net/.data/serialization_id": b"0" * 40,
}


def safetensors(header: Any = TENSORS, values: bytes = VALUES, length: int | None = None) -> bytes:
    """A file of this header (bytes as they are) and these values, with the right length of the header or another."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + values


def changed(name: str, **fields: Any) -> dict[str, Any]:
    """The header with other fields of one tensor."""
    return {**TENSORS, name: {**TENSORS[name], **fields}}


def one_tensor(dtype: str, shape: list[int], item: int) -> bytes:
    """A file of one tensor `w` of zeros."""
    size = math.prod(shape) * item
    return safetensors({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}, b"\x00" * size)


def archive(members: dict[str, bytes] = MEMBERS, *, compressed: str = "") -> bytes:
    """A zip of these members, one of them compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            kind = zipfile.ZIP_DEFLATED if name == compressed else zipfile.ZIP_STORED
            file.writestr(name, data, compress_type=kind)
    return buffer.getvalue()


def with_members(**changes: bytes) -> bytes:
    """The archive with other or more members."""
    return archive({**MEMBERS, **changes})
