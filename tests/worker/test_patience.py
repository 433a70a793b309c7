"""A database that is away for a moment costs nothing; one that stays away is given up."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace

import pytest
from databases import Postgres
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError, TimeoutError

from dianaq.schemas.resources import Artifact
from dianaq_service.artifacts import repository as artifacts
from dianaq_service.database import Database
from dianaq_service.database.away import is_away
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import patience
from dianaq_worker.child.recorder import Recorder
from dianaq_worker.leases import claim
from dianaq_worker.patience import patiently
from dianaq_worker.supervisor import Supervisor

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, history, row_of, states, wait_for

AWAY = OperationalError("SELECT", {}, Exception("the server closed the connection"))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.01)


def test_it_is_done_again_until_it_works() -> None:
    failures = [AWAY, AWAY, TimeoutError()]

    def action() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert patiently(action, 20) == "done"


def test_patience_ends() -> None:
    tries = []

    def action() -> None:
        tries.append(1)
        raise AWAY

    with pytest.raises(OperationalError):
        patiently(action, 0.1)
    assert len(tries) > 1


@pytest.mark.parametrize("error", [ValueError(), ProgrammingError("SELECT", {}, sqlite3.ProgrammingError())])
def test_other_errors_are_not_waited_for(error: Exception) -> None:
    tries = []

    def action() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        patiently(action, 20)
    assert len(tries) == 1


def test_sqlite_is_away_while_somebody_else_writes_and_not_when_asked_for_nonsense(
    settings: Settings, database: Database
) -> None:
    with database.read() as session, pytest.raises(SQLAlchemyError) as nonsense:
        session.execute(text("SELECT x FROM nowhere"))
    assert not is_away(nonsense.value)
    other = Database(settings.database)
    try:
        with database.write() as first, other.read() as second:
            first.execute(select(1))
            second.execute(text("PRAGMA busy_timeout = 1"))
            with pytest.raises(SQLAlchemyError) as busy:
                second.execute(text("DELETE FROM jobs"))
    finally:
        other.close()
    assert is_away(busy.value)


def test_postgresql_says_how_it_is_away(postgres: str, postgres_server: Postgres) -> None:
    database = Database(postgres)
    database.create_tables()
    try:
        with database.read() as session, pytest.raises(SQLAlchemyError) as nonsense:
            session.execute(text("SELECT x FROM nowhere"))
        assert not is_away(nonsense.value)
        with database.write() as session:
            session.execute(select(1))
            postgres_server.stop()
            try:
                with pytest.raises(SQLAlchemyError) as broken:
                    session.execute(select(1))
                with pytest.raises(SQLAlchemyError) as refused, database.read() as second:
                    second.execute(select(1))
            finally:
                postgres_server.start()
            session.rollback()
        assert is_away(broken.value)
        assert is_away(refused.value)
        with database.read() as session:
            assert session.scalar(select(1)) == 1
    finally:
        database.close()


def test_a_success_whose_answer_was_lost_is_a_success(
    database: Database, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(database, storage)
    assert claim(database, job, "w", 30) == 1
    recorder = Recorder(database, job, 1, patience=20)
    write, answers = database.write, ["lost"]

    class Deaf:
        """A transaction that is committed without anybody hearing of it."""

        def __enter__(self) -> object:
            self.inner = write()
            return self.inner.__enter__()

        def __exit__(self, *error: object) -> None:
            self.inner.__exit__(*error)  # type: ignore[arg-type]
            if answers and error[0] is None:
                answers.pop()
                raise AWAY

    monkeypatch.setattr(database, "write", Deaf)
    files = [Artifact(path="report.json", size=2, sha256="0" * 64)]
    assert recorder.succeed(files)
    assert answers == []
    with database.read() as session:
        assert artifacts.listing(session, job) == files
    assert states(history(database, job)) == ["queued", "running", "succeeded"]


@pytest.mark.usefixtures("fake_pipeline")
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_outlives_a_restart_of_the_server(
    settings: Settings, database: Database, storage: Storage, postgres_server: Postgres
) -> None:
    # As long as the server may take on a busy machine.
    patient = replace(settings, lease_seconds=30)
    queue = JobQueue(patient.broker_url, database)
    supervisor = Supervisor(patient, database, queue)
    job = add_job(database, storage, fake.PLOD)
    thread = threading.Thread(target=supervisor.run, args=(job,))
    thread.start()
    try:
        wait_for(lambda: row_of(database, job).metrics)
        before = history(database, job)
        postgres_server.stop()
        # Supervisor and child both meet it.
        thread.join(2)
        assert thread.is_alive()
        postgres_server.start()
        thread.join(60)
        assert not thread.is_alive()
    finally:
        supervisor.stop()
        thread.join()
        queue.close()
    row = row_of(database, job)
    assert (row.state, row.attempt, row.losses) == ("succeeded", 1, 0), storage.log(job, 1).read_text()
    assert "the database is away" in storage.log(job, 1).read_text()
    after = history(database, job)
    assert after[: len(before)] == before
    # All that the pipeline said is there. An event whose answer was lost with the connection may be there twice.
    assert len({event.body.epoch for event in after if event.body.type == "metrics"}) == 60
