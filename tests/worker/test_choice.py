"""Whose turn it is: kinds of workers, priorities, owners that take turns, age."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import takewhile
from typing import Any

import pytest
from databases import ON_BOTH
from sqlalchemy import update

from dianaq_service.database import Database, JobRow
from dianaq_service.database.tables import now
from dianaq_service.queue import Kind
from dianaq_service.storage import Storage
from dianaq_worker.choice import claim_best

from .support import add_job_of, add_uploads, lose_worker, row_of

pytestmark = ON_BOTH

HOUR = 3600.0


@pytest.fixture
def uploads(database: Database, storage: Storage) -> dict[str, str]:
    return add_uploads(database, storage)


def take(database: Database, kind: Kind = "cpu") -> str | None:
    claimed = claim_best(database, kind, "w", 30, HOUR)
    return claimed and claimed[0]


def take_all(database: Database, kind: Kind = "cpu") -> list[str]:
    return [job for job in takewhile(bool, iter(lambda: take(database, kind), "")) if job]


def change(database: Database, job: str, **values: Any) -> None:
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job).values(values))


def end(database: Database, job: str) -> None:
    change(database, job, state="succeeded")


def test_workers_take_the_jobs_of_their_kind(database: Database, uploads: dict[str, str]) -> None:
    made = {device: add_job_of(database, uploads, device=device) for device in ("gpu", "any", "cpu")}
    assert take_all(database, "cpu") == [made["any"], made["cpu"]]
    assert take_all(database, "gpu") == [made["gpu"]]
    second = {device: add_job_of(database, uploads, device=device) for device in ("cpu", "any", "gpu")}
    assert take_all(database, "gpu") == [second["any"], second["gpu"]]
    assert take(database, "cpu") == second["cpu"]


def test_the_most_urgent_first_then_the_oldest(database: Database, uploads: dict[str, str]) -> None:
    made = [(priority, add_job_of(database, uploads, priority=priority)) for priority in 2 * ("low", "normal", "high")]
    expected = [job for wanted in ("high", "normal", "low") for priority, job in made if priority == wanted]
    assert take_all(database) == expected


@pytest.mark.parametrize(
    ("waited", "taken"),
    [
        ({"low": 0, "normal": 0, "high": 0}, ["high", "normal", "low"]),
        ({"low": 1.5, "normal": 0, "high": 0}, ["high", "low", "normal"]),
        ({"low": 0, "normal": 1.5, "high": 0}, ["normal", "high", "low"]),
        ({"low": 2.5, "normal": 0, "high": 1}, ["low", "high", "normal"]),
        ({"low": 9.0, "normal": 8, "high": 7}, ["low", "normal", "high"]),
    ],
)
def test_who_waits_becomes_urgent(
    database: Database, uploads: dict[str, str], waited: dict[str, float], taken: list[str]
) -> None:
    names = {}
    for priority in sorted(waited, key=lambda name: -waited[name]):
        job = add_job_of(database, uploads, priority=priority)
        change(database, job, created=now() - timedelta(seconds=HOUR * waited[priority]))
        names[job] = priority
    assert [names[job] for job in take_all(database)] == taken


def test_an_owner_with_many_jobs_starves_nobody(database: Database, uploads: dict[str, str]) -> None:
    for _ in range(30):
        add_job_of(database, uploads, owner="alice")
    one = add_job_of(database, uploads, owner="bob")
    first = take(database)
    assert row_of(database, first or "").owner == "alice"
    assert take(database) == one


def test_owners_take_turns(database: Database, uploads: dict[str, str]) -> None:
    for owner, jobs in (("alice", 6), ("bob", 3), ("carol", 2)):
        for _ in range(jobs):
            add_job_of(database, uploads, owner=owner)
    served = []
    # One worker: each job ends before the next one starts.
    while job := take(database):
        served.append(row_of(database, job).owner[0])
        end(database, job)
    assert "".join(served) == "abcabcabaaa"


def test_who_has_the_fewest_jobs_running_is_next(database: Database, uploads: dict[str, str]) -> None:
    for owner in ("alice", "bob"):
        for _ in range(4):
            add_job_of(database, uploads, owner=owner)
    running = [job for job in (take(database) for _ in range(4)) if job]
    assert Counter(row_of(database, job).owner for job in running) == {"alice": 2, "bob": 2}
    for job in running:
        if row_of(database, job).owner == "alice":
            end(database, job)
    assert [row_of(database, take(database) or "").owner for _ in range(2)] == ["alice", "alice"]


def test_the_jobs_of_lost_workers_are_taken_over(database: Database, uploads: dict[str, str]) -> None:
    job = add_job_of(database, uploads)
    assert take(database) == job
    assert take(database) is None
    lose_worker(database, job)
    assert take(database) == job
    assert (row_of(database, job).attempt, row_of(database, job).losses) == (2, 1)


def test_of_many_workers_each_takes_another_job(database: Database, uploads: dict[str, str]) -> None:
    jobs = {add_job_of(database, uploads, owner=f"owner{number % 3}") for number in range(24)}
    with ThreadPoolExecutor(8) as pool:
        taken = [job for share in pool.map(lambda _: take_all(database), range(8)) for job in share]
    assert Counter(taken) == Counter(jobs)
    assert {row_of(database, job).attempt for job in jobs} == {1}


def test_a_job_that_waits_for_another_is_passed_over(database: Database, uploads: dict[str, str]) -> None:
    parent = add_job_of(database, uploads, priority="low")
    child = add_job_of(database, uploads, priority="high")
    change(database, child, waits_for=parent)
    assert take_all(database) == [parent]
    change(database, child, waits_for=None)
    assert take(database) == child
