"""Inspection of a state dict as torch.save writes it: a zip of stored members below one folder.

    <root>/data.pkl     a pickle of the names, shapes and types of the tensors; read by the job, never here
    <root>/data/<N>     the values of one storage
    <root>/version, byteorder, .format_version, .storage_alignment, .data/serialization_id

https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from dianaq.errors import InvalidModel
from dianaq.inspection.foreign import BROKEN_ZIP, SAVE_STATE_DICT
from dianaq.inspection.pickle_globals import check_globals
from dianaq.schemas.resources import WeightsInfo

MAX_MEMBERS = 10_000
"""The deepest network of the zoo has some 300 tensors, and a training checkpoint of it three times as many."""

MAX_PICKLE_BYTES = 2**20
"""A tensor takes some 200 bytes of it."""

CHUNK_BYTES = 2**20

_ROOT = re.compile(r"[^/\\\0]{1,200}")
_STORAGE = re.compile(r"data/[0-9]{1,9}")
_SMALL = frozenset({"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"})
_SMALL_BYTES = 256
"""Each of those is a number or a word."""


def inspect_pytorch(path: str | os.PathLike[str]) -> WeightsInfo:
    """What a PyTorch file holds, as far as that shows without unpickling; every byte was checked against its CRC.

    Raises:
        InvalidModel: names the member at fault and what would be accepted.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, Path(path).stat().st_size)
            storages = [info for name, info in members.items() if _STORAGE.fullmatch(name)]
            byteorder = _content(archive, members["byteorder"]) if "byteorder" in members else b"little"
            check_globals(_content(archive, members["data.pkl"]))
            for info in members.values():
                _check_crc(archive, info)
    except BROKEN_ZIP as error:
        raise InvalidModel(f"the zip archive is damaged or truncated: {error}") from None
    if byteorder != b"little":
        raise InvalidModel(
            f"the weights have the byte order {byteorder.decode(errors='replace')!r}; save them 'little'"
        )
    return WeightsInfo(format="pytorch", tensors=len(storages), bytes=sum(info.file_size for info in storages))


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by their path below the root."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise InvalidModel(f"the zip archive has {len(infos):,} members; at most {MAX_MEMBERS:,} are accepted")
    roots = [info.filename.removesuffix("/data.pkl") for info in infos if info.filename.endswith("/data.pkl")]
    if len(roots) != 1 or not _ROOT.fullmatch(roots[0]) or roots[0] in (".", ".."):
        raise InvalidModel(
            f"the file is a zip archive, but no state dict of PyTorch: it must hold one <name>/data.pkl, it holds "
            f"{len(roots)}; {SAVE_STATE_DICT}"
        )
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        _check_stored(info)
        name = info.filename.removeprefix(f"{roots[0]}/")
        known = name == "data.pkl" or name in _SMALL or _STORAGE.fullmatch(name)
        if not known or name == info.filename or name in found:
            raise InvalidModel(
                f"the zip archive has the member {info.filename!r:.80}, which is no part of a state dict, or there "
                f"twice; {SAVE_STATE_DICT}",
                param=info.filename,
            )
        found[name] = info
    # Members that share bytes would make a small file large.
    if (total := sum(info.file_size for info in infos)) > size:
        raise InvalidModel(f"the members of the zip archive take {total:,} bytes; the file has {size:,}")
    if min(info.header_offset for info in infos) != 0:
        raise InvalidModel("the zip archive has something before its first member")
    return found


def _check_stored(info: zipfile.ZipInfo) -> None:
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise InvalidModel(
            f"member {info.filename!r:.80} of the zip archive is compressed; torch.save stores all as it is",
            param=info.filename,
        )
    limit = MAX_PICKLE_BYTES if info.filename.endswith(".pkl") else _SMALL_BYTES
    if not _STORAGE.fullmatch(info.filename.partition("/")[2]) and info.file_size > limit:
        raise InvalidModel(
            f"member {info.filename!r:.80} of the zip archive has {info.file_size:,} bytes; at most {limit:,} are "
            "accepted",
            param=info.filename,
        )


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    return archive.read(info)


def _check_crc(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    # Reading to the end is what checks it.
    with archive.open(info) as stream:
        while stream.read(CHUNK_BYTES):
            pass
