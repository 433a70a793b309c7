"""A database and a data folder, without any process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dianaq_service.database import Database
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker.supervisor import Supervisor

from .support import with_fakes


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        # SQLite lives in the data folder.
        database_url="" if database_url.startswith("sqlite") else database_url,
        broker_url="redis://127.0.0.1:1/0",
        lease_seconds=2,
        cancel_grace_seconds=0.5,
        stop_grace_seconds=0.5,
        sweep_seconds=0.2,
    )


@pytest.fixture
def storage(settings: Settings) -> Storage:
    storage = Storage(settings.data_dir)
    storage.create()
    return storage


@pytest.fixture
def database(settings: Settings, storage: Storage) -> Iterator[Database]:
    database = Database(settings.database)
    database.create_tables()
    yield database
    database.close()


@pytest.fixture
def queue(settings: Settings, database: Database) -> Iterator[JobQueue]:
    queue = JobQueue(settings.broker_url, database)
    yield queue
    queue.close()


@pytest.fixture
def supervisor(settings: Settings, database: Database, queue: JobQueue) -> Supervisor:
    return Supervisor(settings, database, queue)


@pytest.fixture
def fake_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that are started from now on run the fake pipeline."""
    monkeypatch.setenv("PYTHONPATH", with_fakes())
