"""The disk of the artifact store is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .watch import in_training

DISK = "32m"
BLOCK = 1 << 16


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own where the stack keeps its data; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be filled here: only root mounts one ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    """Take all the space that is left."""
    with file.open("wb", buffering=0) as out:
        while True:
            try:
                out.write(b"\0" * BLOCK)
            except OSError:
                return


@pytest.mark.slow
def test_the_disk_is_full(
    small_disk: Path, make_stack: MakeStack, long: Reference, record: Recorder, tmp_path: Path, database_url: str
) -> None:
    # The database is elsewhere: where it is full too, nothing can be noted until there is space again.
    elsewhere = database_url or f"sqlite:///{tmp_path}/elsewhere.sqlite"
    stack = make_stack(long, settings={"data_dir": small_disk / "data", "database_url": elsewhere})
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        filler = small_disk / "filler"
        fill(filler)
        with record.recovery(
            "the disk of the artifact store is full",
            "the job fails and says so; the service goes on, and later jobs succeed once there is space",
            "the job has failed",
        ):
            job.wait(progress=False, raise_on_failure=False)
        assert job.state == "failed"
        filler.unlink()
        after = client.submit_job(long.spec)
        aftermath.check(stack, [job, after], long)
        assert after.refresh().state == "succeeded"
