"""What kind of file an upload is, told by its first bytes and never by its name. Plain Python."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import Literal

from dianaq.errors import InvalidModel
from dianaq.inspection.foreign import EXPORT, FOLDER, HEAD_BYTES, SAVE_STATE_DICT, foreign

Format = Literal["onnx", "safetensors", "pytorch"]

MAX_BYTES = 80 * 2**20
"""What 16 Mi float32 parameters take, and a quarter more for what is around them."""

_ZIP = b"PK"
_PICKLE = b"\x80"
"""The opcode PROTO, with which pickles since protocol 2 begin. No protobuf message begins with it: field 0 is not
allowed (https://protobuf.dev/programming-guides/encoding)."""

_LOCATION = re.compile(rb"\n\x08location\x12([\x80-\xff]?[\x00-\x7f])")
"""How an ONNX file says in which file a tensor lies: a StringStringEntryProto (onnx.proto) as protobuf writes it, the
key, and the length of the name. Text that a model carries along may look like it."""


def data_file(path: str | os.PathLike[str]) -> str | None:
    """The file that an ONNX file keeps weights in, as it names it; None where all are inside, and of other formats.

    Told without parsing, so that it needs nothing installed. What it finds may be no more than a resemblance.

    Raises:
        InvalidModel: see `file_format`.
    """
    if file_format(path) != "onnx":
        return None
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _LOCATION.search(data)
        if found is None:
            return None
        length = sum((digit & 0x7F) << 7 * place for place, digit in enumerate(found[1]))
        return data[found.end() : found.end() + length].decode(errors="replace")


def file_format(path: str | os.PathLike[str]) -> Format:
    """The format of a model or weights file at first sight; everything unknown passes for ONNX.

    Raises:
        InvalidModel: the file is missing, empty or too large, or it is a pickle, or of another format that is known.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD_BYTES)
            size = os.fstat(file.fileno()).st_size
    except IsADirectoryError:
        raise InvalidModel(FOLDER) from None
    except OSError as error:
        raise InvalidModel(f"the model file cannot be read: {error.strerror}") from None
    if not head:
        raise InvalidModel("the model file is empty")
    if size > MAX_BYTES:
        raise InvalidModel(f"the model file has {size:,} bytes; at most {MAX_BYTES:,} are accepted")
    if head.startswith(_PICKLE):
        raise InvalidModel(
            f"the file is a pickle, whose reading could run anything; with PyTorch 1.6 or newer, {SAVE_STATE_DICT}; a "
            f"whole network is given as ONNX: {EXPORT} makes it"
        )
    # A header of JSON after its length in 8 bytes, the upper ones of which are zero for every file below a terabyte.
    if head[5:9] == b"\0\0\0{":
        return "safetensors"
    if what := foreign(head, path):
        raise InvalidModel(what)
    return "pytorch" if head.startswith(_ZIP) else "onnx"
