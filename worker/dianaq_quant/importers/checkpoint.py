"""The archive of a PyTorch checkpoint, looked at before anything in it is unpickled."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from dianaq.errors import InvalidModel

MAX_BYTES = 2**30
"""Bytes of a weights file. The whole network is in memory several times during a job; the chip's memory holds half a
megabyte of weights, so that a gigabyte excludes no network that could ever run on it."""

MAX_MEMBERS = 20_000
"""One member per tensor, and few more; the largest network of the zoo has 314 tensors."""

MAX_PICKLE_BYTES = 16 * 2**20
"""Bytes of `data.pkl`, which holds names and shapes only: some hundred per tensor."""

_MEMBER = re.compile(r"[^/\\]+/(data\.pkl|byteorder|version|data/\d+|\.format_version|\.storage_alignment|\.data/\w+)")
"""What `torch.save` writes: one folder, named after the file."""


def check_archive(path: Path) -> None:
    """Check the directory of a `.pt` file.

    Raises:
        InvalidModel: no zip file (the format of PyTorch before 1.6 is a bare pickle), members that are compressed,
            repeated, of other names than `torch.save` gives, or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidModel(
            f"{path.name} is no zip file as torch.save has written since PyTorch 1.6, or is cut short ({error}); "
            "torch.save(network.state_dict(), path) makes what is accepted",
            param=path.name,
        ) from error
    if len(members) > MAX_MEMBERS:
        raise InvalidModel(f"{path.name} has {len(members)} members; up to {MAX_MEMBERS} are accepted", param=path.name)
    total, size = sum(m.file_size for m in members), path.stat().st_size
    if max(total, size) > MAX_BYTES:
        raise InvalidModel(
            f"{path.name} holds {max(total, size)} bytes; up to {MAX_BYTES} are accepted", param=path.name
        )
    for member in members:
        _check_member(path, member)
    names = [member.filename for member in members]
    pickles = [name for name in names if name.endswith("/data.pkl")]
    folders = {name.partition("/")[0] for name in names}
    if len(set(names)) < len(names) or len(pickles) != 1 or len(folders) != 1:
        raise InvalidModel(
            f"{path.name} has members of one name, or not exactly one folder with one data.pkl; "
            "an archive as torch.save writes it is accepted",
            param=path.name,
        )


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    if _MEMBER.fullmatch(name) is None or ".." in name.split("/"):
        hint = " (a TorchScript file? save its state_dict)" if name.endswith(("constants.pkl", ".py")) else ""
        raise InvalidModel(f"{path.name} holds {name!r}, which torch.save does not write{hint}", param=path.name)
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size or member.flag_bits & 1:
        raise InvalidModel(
            f"{path.name}: {name} is compressed or encrypted; stored members are accepted", param=path.name
        )
    if name.endswith("/data.pkl") and member.file_size > MAX_PICKLE_BYTES:
        raise InvalidModel(
            f"{path.name}: {name} has {member.file_size} bytes; up to {MAX_PICKLE_BYTES} are accepted", param=path.name
        )
