"""Fixtures that every package's tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["databases"]

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and trained models; skips where there is none.

    `DIANAQ_SHARED_DATA` names it; by default it lies beside the repository.
    """
    folder = Path(os.environ.get("DIANAQ_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DIANAQ_SHARED_DATA")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a disk of its own, of 8 MiB; skips where nothing may be mounted."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("NO TEST OF A FULL DISK: mounting a small one takes root and the right to mount")
    yield folder
    # Lazily: a connection that a failed test left open must not keep the folder.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
