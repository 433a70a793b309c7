"""Who holds a job: claims, fences, losses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from databases import ON_BOTH
from sqlalchemy import update

from dianaq.schemas.events import LogBody
from dianaq_service.database import Database, JobRow
from dianaq_service.database.tables import now
from dianaq_service.events.repository import append
from dianaq_service.jobs.states import is_in, move
from dianaq_service.storage import Storage
from dianaq_worker import leases

from .support import add_job, history, row_of, states

pytestmark = ON_BOTH


@pytest.fixture
def job(database: Database, storage: Storage) -> str:
    return add_job(database, storage)


def claim(database: Database, job: str) -> int | None:
    return leases.claim(database, job, "w", 30)


def lease_of(database: Database, job: str) -> leases.Lease:
    (lease,) = (lease for lease in leases.current(database) if lease.job_id == job)
    return lease


def cancel(database: Database, job: str) -> None:
    with database.write() as session:
        assert move(session, job, "cancelling", is_in("running")) is not None


def test_of_many_claims_one_wins(database: Database, job: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = [attempt for attempt in pool.map(lambda _: claim(database, job), range(8)) if attempt]
    assert won == [1]
    assert states(history(database, job)) == ["queued", "running"]


@pytest.mark.parametrize("state", ["cancelling", "succeeded", "failed", "cancelled"])
def test_only_a_waiting_job_can_be_claimed(database: Database, job: str, state: str) -> None:
    with database.write() as session:
        move(session, job, state)
    assert claim(database, job) is None
    assert claim(database, "job_unknown") is None


def test_a_lease_that_is_not_renewed_can_be_ended_and_counts_as_a_loss(database: Database, job: str) -> None:
    assert claim(database, job) == 1
    assert claim(database, job) is None
    first = row_of(database, job)
    leases.end(database, lease_of(database, job), 3)
    assert leases.current(database) == []
    assert claim(database, job) == 2
    row = row_of(database, job)
    assert (row.attempt, row.losses, row.started) == (2, 1, first.started)


def test_a_lease_that_was_renewed_or_is_anothers_cannot_be_ended(database: Database, job: str) -> None:
    claim(database, job)
    seen = lease_of(database, job)
    assert leases.renew(database, job, 1, 30) == "running"
    leases.end(database, seen, 3)
    assert row_of(database, job).state == "running"
    renewed = lease_of(database, job)
    leases.end(database, renewed, 3)
    claim(database, job)
    before = history(database, job)
    leases.end(database, renewed, 3)
    assert (row_of(database, job).losses, history(database, job)) == (1, before)


def test_an_overtaken_attempt_can_change_nothing(database: Database, job: str) -> None:
    claim(database, job)
    leases.end(database, lease_of(database, job), 3)
    claim(database, job)
    before = history(database, job)
    assert leases.renew(database, job, 1, 30) is None
    leases.hand_back(database, job, 1)
    assert not leases.lose(database, job, 1, "was killed", 3)
    with database.write() as session:
        assert append(session, job, LogBody(message="late"), leases.held(1)) is None
        assert not leases.end_cancelled(session, job, 1)
        assert move(session, job, "succeeded", leases.held(1)) is None
    row = row_of(database, job)
    assert (row.state, row.attempt) == ("running", 2)
    assert history(database, job) == before


def test_a_job_that_was_handed_back_has_lost_nothing(database: Database, job: str) -> None:
    for attempt in range(1, 8):
        assert claim(database, job) == attempt
        leases.hand_back(database, job, attempt)
    row = row_of(database, job)
    assert (row.state, row.losses, row.lease_expires, row.sent) == ("queued", 0, None, None)


def test_the_last_loss_fails_the_job(database: Database, job: str) -> None:
    again = [leases.lose(database, job, claim(database, job) or 0, "was killed by SIGKILL", 3) for _ in "123"]
    assert again == [True, True, False]
    row = row_of(database, job)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error["type"] == "worker-lost"
    assert "SIGKILL" in row.error["detail"]
    logs = [e.body.message for e in history(database, job) if e.body.type == "log"]
    assert [line[:9] for line in logs] == ["attempt 1", "attempt 2", "attempt 3"]


@pytest.mark.parametrize("end", ["lose", "hand_back", "end"])
def test_a_job_that_is_being_cancelled_ends_cancelled(database: Database, job: str, end: str) -> None:
    claim(database, job)
    cancel(database, job)
    if end == "lose":
        assert not leases.lose(database, job, 1, "was killed", 3)
    elif end == "hand_back":
        leases.hand_back(database, job, 1)
    else:
        leases.end(database, lease_of(database, job), 3)
    assert row_of(database, job).state == "cancelled"


def test_a_job_that_loses_every_worker_fails(database: Database, job: str) -> None:
    for _ in "123":
        assert claim(database, job) is not None
        leases.end(database, lease_of(database, job), 3)
    row = row_of(database, job)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error["type"] == "worker-lost"


def test_what_is_to_be_sent(database: Database, storage: Storage) -> None:
    fresh, recent, old, future, held, done = (add_job(database, storage) for _ in range(6))

    def sent(job: str, seconds_ago: float) -> None:
        with database.write() as session:
            values = {"sent": now() - timedelta(seconds=seconds_ago)}
            session.execute(update(JobRow).where(JobRow.id == job).values(values))

    claim(database, held)
    with database.write() as session:
        move(session, done, "cancelled")
    for job, age in ((recent, 5), (old, 60), (future, -3600), (held, 60)):
        sent(job, age)
    assert leases.to_send(database, 30) == ([fresh], {"any": [old, future]})


def test_events_are_numbered_without_gaps_by_many_writers(database: Database, job: str) -> None:
    claim(database, job)

    def write(number: int) -> None:
        with database.write() as session:
            append(session, job, LogBody(message=str(number)), leases.held(1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(50)))
    assert [event.seq for event in history(database, job)] == list(range(1, 53))
