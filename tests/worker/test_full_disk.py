"""A job that meets a full disk fails with words, is not started again, and leaves room for the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dianaq_service.database import Database
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker.supervisor import Supervisor

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, history, row_of, states

pytestmark = pytest.mark.usefixtures("fake_pipeline")


@pytest.fixture
def settings(settings: Settings, small_disk: Path) -> Settings:
    return replace(settings, data_dir=small_disk / "data", min_free_bytes=0, lease_seconds=30)


def test_a_job_that_fills_the_disk_fails_once_and_the_next_one_succeeds(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue
) -> None:
    supervisor = Supervisor(settings, database, queue)
    job = add_job(database, storage, fake.FILL)
    supervisor.run(job)
    row = row_of(database, job)
    assert row.error is not None, storage.log(job, 1).read_text()
    assert (row.state, row.attempt, row.losses, row.error["type"]) == ("failed", 1, 0, "disk-full")
    assert str(storage.root) in row.error["detail"]
    assert "bytes are free" in row.error["detail"]
    assert states(history(database, job)) == ["queued", "running", "failed"]
    assert not list((settings.data_dir / "snapshots").iterdir())
    after = add_job(database, storage, fake.SUCCEED)
    supervisor.run(after)
    assert row_of(database, after).state == "succeeded"


def test_no_job_starts_below_the_floor(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue
) -> None:
    job = add_job(database, storage, fake.SUCCEED)
    Supervisor(replace(settings, min_free_bytes=1024**3), database, queue).run(job)
    row = row_of(database, job)
    assert row.error is not None, storage.log(job, 1).read_text()
    assert (row.state, row.error["type"]) == ("failed", "disk-full")
    assert "DIANAQ_MIN_FREE_BYTES" in row.error["detail"]
