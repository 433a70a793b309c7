"""The disk of the artifact store is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .watch import in_training

BLOCK = 4096
"""Of a file system: what is smaller than that does not fit any more either."""


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
            "the job fails with `disk-full`; the service goes on, and later jobs succeed once there is space",
            "the job has failed",
        ):
            job.wait(progress=False, raise_on_failure=False)
        assert job.job.error is not None
        assert (job.state, job.job.error.type) == ("failed", "disk-full")
        filler.unlink()
        after = client.submit_job(long.spec)
        aftermath.check(stack, [job, after], long)
        assert after.refresh().state == "succeeded"
