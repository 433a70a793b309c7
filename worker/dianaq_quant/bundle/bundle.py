"""The artifact bundle: a folder that appears complete or not at all, its manifest, and a zip of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dianaq.errors import InvalidSpec
from dianaq.schemas.spec import JobSpec

MANIFEST = "manifest.json"
ARCHIVE = "bundle.zip"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold: the same files give the same archive, whenever it is made."""


@contextmanager
def new_bundle(out_dir: Path, spec: JobSpec) -> Iterator[Path]:
    """A temporary folder beside `out_dir`; on success it gets manifest and zip and becomes `out_dir`.

    Raises:
        InvalidSpec: `out_dir` exists and is not an empty folder.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise InvalidSpec(f"the output folder {out_dir} exists and is not empty", param="out_dir")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        yield folder
        _finish(folder, spec)
        folder.chmod(0o755)  # mkdtemp makes it private
        folder.replace(out_dir)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finish(folder: Path, spec: JobSpec) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    manifest = {
        "format": 1,
        "spec": spec.recorded(),
        "files": {p.relative_to(folder).as_posix(): sha256(p) for p in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted([*files, folder / MANIFEST]):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_EPOCH)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
