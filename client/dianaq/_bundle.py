"""A downloaded bundle: checked file by file, and in its folder complete or not at all."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from dianaq.errors import ServiceError

ARCHIVE = "bundle.zip"
MANIFEST = "manifest.json"

MAX_FILES = 100_000
"""Golden files come one per layer; far more means that the archive is not ours."""

MAX_BYTES = 16 * 2**30
"""Of all files together: the largest accepted model a hundred times over, and still a disk's worth."""


@contextmanager
def complete_or_absent(out_dir: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `out_dir` to be filled, which takes its place when the block ends without an error.

    Args:
        overwrite: replace the folder whatever it holds. Without it, only an empty folder or an older bundle is.

    Raises:
        FileExistsError: `out_dir` is a file, holds other things, or is the current folder.
    """
    out_dir = out_dir.expanduser().resolve()
    check_replaceable(out_dir, overwrite=overwrite)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    fresh, old = (out_dir.with_name(f".{out_dir.name}.{what}-{mark}") for what in ("partial", "old"))
    fresh.mkdir()
    try:
        yield fresh
        check_replaceable(out_dir, overwrite=overwrite)
        if out_dir.exists():
            out_dir.rename(old)
        try:
            fresh.rename(out_dir)
        except OSError:
            if old.exists():
                old.rename(out_dir)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(out_dir: Path, *, overwrite: bool) -> None:
    """Refuse a folder whose loss could hurt; see `complete_or_absent`."""
    if not out_dir.exists():
        return
    if not out_dir.is_dir():
        raise FileExistsError(f"{out_dir} is a file; name a folder")
    if Path.cwd().is_relative_to(out_dir):
        raise FileExistsError(f"{out_dir} is the current folder, or around it; name a folder of its own")
    if not (overwrite or not any(out_dir.iterdir()) or _is_bundle(out_dir)):
        raise FileExistsError(f"{out_dir} holds other things than a bundle; name another folder, or overwrite it")


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle and nothing else."""
    try:
        listed = {*_read_manifest((folder / MANIFEST).read_bytes()), MANIFEST, ARCHIVE}
    except (OSError, ServiceError):
        return False
    return all(p.relative_to(folder).as_posix() in listed for p in folder.rglob("*") if not p.is_dir())


def unpack(archive: Path, folder: Path) -> None:
    """Extract a bundle and check each file against its manifest.

    Raises:
        ServiceError: names the member that is damaged, unlisted, missing or would leave the folder.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = _members(bundle)
            if MANIFEST not in members:
                raise ServiceError(f"the bundle has no {MANIFEST}")
            manifest = _read_manifest(bundle.read(MANIFEST))
            for name, info in members.items():
                digest = _extract(bundle, info, folder / name)
                if name != MANIFEST and manifest.get(name) != digest:
                    known = f"its sha256 is {digest}" if name in manifest else "the manifest does not list it"
                    raise ServiceError(f"the bundle's {name!r} is not what its manifest says: {known}")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ServiceError(f"the bundle is not a readable zip archive: {error}") from None
    if missing := sorted(manifest.keys() - members.keys()):
        raise ServiceError(f"the bundle lacks {missing[0]!r}, which its manifest lists")


def _members(bundle: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    files = [info for info in bundle.infolist() if not info.is_dir()]
    if len(files) > MAX_FILES or sum(info.file_size for info in files) > MAX_BYTES:
        raise ServiceError(f"the bundle is too large: {len(files):,} files")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in files:
        name = info.filename
        path = PurePosixPath(name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        unsafe = path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\\" in name or ":" in name
        if unsafe or kind not in (0, stat.S_IFREG) or name in found or name == ARCHIVE:
            raise ServiceError(f"the bundle has the member {name!r}, which cannot be extracted safely")
        found[name] = info
    return found


def _extract(bundle: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> str:
    """Write one member; its sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with bundle.open(info) as source, target.open("xb") as sink:
        while chunk := source.read(2**20):
            digest.update(chunk)
            sink.write(chunk)
    return digest.hexdigest()


def _read_manifest(data: bytes) -> dict[str, str]:
    """Relative path -> sha256 of every file of a bundle but the manifest itself."""
    try:
        files = json.loads(data)["files"]
        return {str(path): str(digest) for path, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ServiceError(f"the bundle's {MANIFEST} is damaged") from None
