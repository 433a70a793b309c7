"""What PostgreSQL lets several writers do at once, and SQLite does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from databases import ON_BOTH, ON_POSTGRESQL, Postgres
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError

from dianaq.schemas.spec import JobSpec
from dianaq_service.counters import count
from dianaq_service.database import ApiKeyRow, CounterRow, Database, ModelRow, engine
from dianaq_service.database.away import is_away
from dianaq_service.jobs.intake import add as add_job
from dianaq_service.jobs.service import find
from dianaq_service.jobs.states import is_in, move
from dianaq_service.keys.service import add, configure, make_key, owner_of
from dianaq_service.retention.removal import remove_rows
from dianaq_service.uploads import service as uploads
from dianaq_service.uploads.parts import NO_PARTS

from .conftest import Api


@contextmanager
def meanwhile(server: Postgres, action: Callable[[], Any]) -> Iterator[list[Any]]:
    """Starts the action in a thread, and the block once it waits for a lock. What it gave is in the list afterwards."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(action())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.waiting():
        assert thread.is_alive(), f"it did not wait: {results}"
        assert time.monotonic() < deadline, "it did not come to wait for a lock"
        time.sleep(0.02)
    yield results
    thread.join(20)
    assert not thread.is_alive()


@ON_BOTH
def test_a_reader_sees_one_state(api: Api) -> None:
    database = api.services.database
    with database.read() as session:
        before = session.scalar(select(func.count()).select_from(ModelRow))
        api.add_model()
        assert session.scalar(select(func.count()).select_from(ModelRow)) == before
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(ModelRow)) == (before or 0) + 1


@ON_POSTGRESQL
def test_counting_makes_nobody_wait(api: Api) -> None:
    """Two that each held a count, and waited for a job of the other's, would wait for ever."""
    database, done = api.services.database, threading.Event()

    def other() -> None:
        with database.write() as session:
            count(session, "moves", "failed")
        done.set()

    with database.write() as session:
        count(session, "moves", "failed")
        session.execute(select(1))
        thread = threading.Thread(target=other)
        thread.start()
        waited = not done.wait(20)
    thread.join()
    assert not waited
    with database.read() as session:
        assert session.get_one(CounterRow, ("moves", "failed", "")).value == 2


@ON_BOTH
def test_counts_are_of_the_transaction(api: Api) -> None:
    database = api.services.database

    def value() -> float | None:
        with database.read() as session:
            return session.scalar(select(CounterRow.value).where(CounterRow.name == "n", CounterRow.label == "l"))

    with database.write() as session:
        count(session, "n", "l")
        session.rollback()
    assert value() is None
    for _ in range(2):
        with database.write() as session:
            count(session, "n", "l", by=2)
            with session.begin_nested():
                count(session, "n", "l")
            count(session, "n", "other")
    assert value() == 6


@ON_POSTGRESQL
def test_two_processes_that_start_with_the_same_key(api: Api, postgres_server: Postgres) -> None:
    database, key = api.services.database, make_key()
    with database.write() as session:
        database.serialise(session, "configured key")
        add(session, "alice", key, configured=True)
        session.flush()
        with meanwhile(postgres_server, lambda: configure(database, "alice", key)) as results:
            session.commit()
    assert results == [None]
    with database.read() as session:
        assert owner_of(session, key) == "alice"
        assert session.scalar(select(func.count()).where(ApiKeyRow.configured)) == 1


@ON_POSTGRESQL
def test_a_job_that_somebody_else_deletes_first(api: Api, postgres_server: Postgres) -> None:
    job = str(api.submit()["id"])
    api.put_in_state(job, "cancelled")
    with api.services.database.write() as session:
        move(session, job, "cancelled")
        with meanwhile(postgres_server, lambda: api.client.delete(f"/v1/jobs/{job}")) as results:
            remove_rows(session, find(session, "alice", job))
            session.commit()
    assert results[0].status_code == 404


@ON_POSTGRESQL
def test_a_job_that_is_handed_back_while_it_is_cancelled(api: Api, postgres_server: Postgres) -> None:
    job = str(api.submit()["id"])
    api.put_in_state(job, "running", attempt=1)
    with api.services.database.write() as session:
        assert move(session, job, "queued", is_in("running")) is not None
        with meanwhile(postgres_server, lambda: api.client.post(f"/v1/jobs/{job}/cancel")) as results:
            session.commit()
    assert (results[0].status_code, results[0].json()["state"]) == (200, "cancelled")


@ON_POSTGRESQL
@pytest.mark.parametrize("kind", [uploads.MODELS, uploads.DATASETS], ids=["model", "dataset"])
def test_an_upload_is_not_deleted_under_a_job_that_is_just_submitted(
    api: Api, postgres_server: Postgres, kind: uploads.Kind[Any]
) -> None:
    ids = {"model": api.add_model(), "dataset": api.add_dataset()}
    with api.services.database.write() as session:
        add_job(session, "alice", JobSpec.model_validate(ids), "job_x", NO_PARTS)
        url = f"/v1/{kind.name}s/{ids[kind.name]}"
        with meanwhile(postgres_server, lambda: api.client.delete(url)) as results:
            session.commit()
    assert results[0].status_code == 409
    assert "job_x" in results[0].json()["detail"]


@ON_POSTGRESQL
def test_a_job_is_not_submitted_for_an_upload_that_is_just_deleted(api: Api, postgres_server: Postgres) -> None:
    body = {"model": api.add_model(), "dataset": api.add_dataset()}
    with api.services.database.write() as session:
        session.delete(session.get_one(ModelRow, body["model"]))
        session.flush()
        with meanwhile(postgres_server, lambda: api.client.post("/v1/jobs", json=body)) as results:
            session.commit()
    assert (results[0].status_code, results[0].json()["param"]) == (422, "model")


@ON_POSTGRESQL
def test_a_database_that_is_away_is_a_503_and_is_found_again(
    api: Api, postgres_server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"model": api.add_model(), "dataset": api.add_dataset()}
    assert api.client.get("/v1/jobs").status_code == 200
    postgres_server.stop()
    try:
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/health")):
            response = api.client.request(method, path, json=body if method == "POST" else None)
            assert (response.status_code, response.json()["type"]) == (503, "service-unavailable")
            assert response.headers["Retry-After"] == "1"
            assert response.json()["request_id"] == response.headers["X-Request-ID"]
            assert "SELECT" not in response.text
    finally:
        postgres_server.start()
    assert api.client.post("/v1/jobs", json=body).status_code == 201
    assert "Traceback" not in caplog.text


def test_a_process_that_is_stopped_in_a_transaction_does_not_keep_its_locks(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "POSTGRESQL_IDLE_SECONDS", 1)
    stopped, other = Database(postgres), Database(postgres)
    other.create_tables()
    with other.write() as session:
        add(session, "alice", "k" * 64)
    rename = update(ApiKeyRow).values(owner="bob")

    def stop_in_a_transaction() -> None:
        with stopped.write() as session:
            session.execute(rename)
            with other.write() as second:  # waits for the lock of one that says nothing any more
                second.execute(rename)

    with pytest.raises(DBAPIError) as ended:
        stop_in_a_transaction()
    assert is_away(ended.value)
    with stopped.read() as session:
        assert session.scalar(select(ApiKeyRow.owner)) == "bob"
    stopped.close()
    other.close()
