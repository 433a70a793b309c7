"""Jobs that are submitted at the same time share a transaction, and neither a fault nor a refusal."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from databases import ON_BOTH
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dianaq.errors import InvalidSpec
from dianaq.schemas.spec import JobSpec
from dianaq_service.database import Database, EventRow, JobRow
from dianaq_service.idempotency import Once, Replay
from dianaq_service.jobs import intake
from dianaq_service.jobs.intake import Intake
from dianaq_service.outbox import Outbox

from .conftest import Api


class Told(list[str]):
    """In the place of the outbox."""

    def put(self, *job_ids: str) -> None:
        self.extend(job_ids)


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[Database]:
    """Grows with each transaction that writes."""
    begun: list[Database] = []
    write = Database.write

    @contextmanager
    def counting(self: Database) -> Iterator[Session]:
        begun.append(self)
        with write(self) as session:
            yield session

    monkeypatch.setattr(Database, "write", counting)
    return begun


def submit(api: Api, told: list[str], *specs: dict[str, str], keys: tuple[str, ...] = ()) -> list[Any]:
    """What becomes of jobs of alice that are submitted at the same time, in their order."""
    database = api.services.database

    async def all_of_them() -> list[Any]:
        taken = Intake(database, cast("Outbox", told))
        onces = [Once(database, "alice", key, "POST /v1/jobs", 201).of("body") for key in keys or [None] * len(specs)]
        jobs = [JobSpec.model_validate(spec) for spec in specs]
        waiting = [taken.submit("alice", job, once) for job, once in zip(jobs, onces, strict=True)]
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(all_of_them())


def busy() -> Exception:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


class Broken:
    """In the place of a method, raises."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __call__(self, *_: object) -> None:
        raise self._error


def stored(api: Api) -> list[str]:
    with api.services.database.read() as session:
        return list(session.scalars(select(JobRow.id).order_by(JobRow.id)))


@pytest.fixture
def spec(api: Api) -> dict[str, str]:
    return {"model": api.add_model(), "dataset": api.add_dataset()}


@ON_BOTH
def test_they_are_stored_together(api: Api, spec: dict[str, str], transactions: list[Database]) -> None:
    del transactions[:]
    told = Told()
    jobs = submit(api, told, *[spec] * (intake.TOGETHER + 1))
    assert len(transactions) == 2
    assert told == [job.id for job in jobs] == stored(api)
    with api.services.database.read() as session:
        events = session.execute(select(EventRow.job_id, EventRow.seq, EventRow.body).order_by(EventRow.job_id))
        assert events.all() == [(job.id, 1, {"type": "state", "state": "queued", "error": None}) for job in jobs]


@ON_BOTH
def test_one_that_is_refused_leaves_the_others_alone(api: Api, spec: dict[str, str]) -> None:
    told = Told()
    first, refused, last = submit(api, told, spec, {**spec, "dataset": "dat_x"}, spec)
    assert isinstance(refused, InvalidSpec)
    assert told == [first.id, last.id] == stored(api)


@ON_BOTH
def test_one_that_breaks_the_transaction_fails_alone(
    api: Api, spec: dict[str, str], transactions: list[Database]
) -> None:
    # What PostgreSQL cannot store is an error of the statement, after which its transaction is over.
    del transactions[:]
    told = Told()
    first, broken, last = submit(api, told, spec, {**spec, "dataset": "\x00"}, spec)
    assert isinstance(broken, Exception)
    assert told == [first.id, last.id] == stored(api)
    assert len(transactions) == (1 if api.services.database.sqlite else 4)


@ON_BOTH
def test_the_same_one_twice_is_done_once(api: Api, spec: dict[str, str]) -> None:
    told = Told()
    first, second = submit(api, told, spec, spec, keys=("k", "k"))
    assert isinstance(second, Replay)
    assert first.id in second.body
    assert told == [first.id] == stored(api)


def test_without_a_database_nobody_tries_for_each_alone(
    api: Api, spec: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def away(self: Database) -> None:
        tried.append(self)
        raise OperationalError("BEGIN", None, busy())

    monkeypatch.setattr(Database, "write", away)
    outcomes = submit(api, Told(), spec, spec)
    assert [type(outcome) for outcome in outcomes] == [OperationalError, OperationalError]
    assert len(tried) == 1


def test_those_that_are_tried_alone_end_with_the_database(
    api: Api, spec: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def away(self: Intake, submissions: list[intake.Submission]) -> None:
        tried.append(len(submissions))
        if len(submissions) > 1:
            raise ZeroDivisionError
        raise OperationalError("BEGIN", None, busy())

    monkeypatch.setattr(Intake, "_store_together", away)
    outcomes = submit(api, Told(), spec, spec, spec)
    assert [type(outcome) for outcome in outcomes] == [OperationalError] * 3
    assert tried == [3, 1]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_fault_of_the_intake_is_the_end_of_nobody_else(
    api: Api, spec: dict[str, str], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    told = Told()
    store = Intake._store

    async def two() -> list[Any]:
        taken = Intake(api.services.database, cast("Outbox", told))
        answers = []
        for broken in (True, False):
            monkeypatch.setattr(Intake, "_store", Broken(error) if broken else store)
            once = Once(api.services.database, "alice", None, "POST /v1/jobs", 201)
            answers += await asyncio.gather(
                taken.submit("alice", JobSpec.model_validate(spec), once), return_exceptions=True
            )
        taken.close()
        return answers

    first, second = asyncio.run(two())
    assert isinstance(first, RuntimeError)
    assert error.__name__ in str(first)
    assert told == [second.id] == stored(api)


@ON_BOTH
def test_a_client_that_left_takes_nothing_with_it(api: Api, spec: dict[str, str]) -> None:
    told = Told()

    async def one_leaves() -> Any:
        taken = Intake(api.services.database, cast("Outbox", told))
        onces = [Once(api.services.database, "alice", None, "POST /v1/jobs", 201) for _ in range(2)]
        job = JobSpec.model_validate(spec)
        leaves, stays = (asyncio.create_task(taken.submit("alice", job, once)) for once in onces)
        while not taken._waiting:
            await asyncio.sleep(0)
        leaves.cancel()
        return await stays

    job = asyncio.run(one_leaves())
    # The request had arrived, and is done.
    assert len(stored(api)) == 2
    assert told == stored(api)
    assert job.id in told


@ON_BOTH
def test_jobs_to_start_from_are_locked_in_one_order(
    api: Api, spec: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(str(api.submit(**spec)["id"]) for _ in range(2))
    seen = []
    check_start = intake.check_start

    def seeing(session: Session, owner: str, job: JobSpec, model: Any) -> str | None:
        seen.append(job.start and job.start[0])
        return check_start(session, owner, job, model)

    monkeypatch.setattr(intake, "check_start", seeing)
    starts = [{"start_from": f"{job}/float"} for job in (second, first)]
    later, earlier, plain = submit(api, Told(), *({**spec, **start} for start in starts), spec)
    assert seen == [None, first, second]
    # Each answer is to its own request all the same.
    assert (later.waits_for, earlier.waits_for, plain.waits_for) == (second, first, None)


def test_more_may_come_later(api: Api, spec: dict[str, str]) -> None:
    told = Told()

    async def one_after_the_other() -> None:
        taken = Intake(api.services.database, cast("Outbox", told))
        for _ in range(2):
            once = Once(api.services.database, "alice", None, "POST /v1/jobs", 201)
            await taken.submit("alice", JobSpec.model_validate(spec), once)

    asyncio.run(one_after_the_other())
    assert told == stored(api)
