"""A supervisor in this process, its children in their own, and the fake pipeline inside those."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import pytest
from databases import ON_BOTH

from dianaq_service.artifacts import repository as artifacts
from dianaq_service.database import Database
from dianaq_service.jobs.states import is_in, move
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import leases
from dianaq_worker import supervisor as supervisor_module
from dianaq_worker.supervisor import Supervisor

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, all_gone, history, overtake, row_of, states, wait_for

pytestmark = pytest.mark.usefixtures("fake_pipeline")


@contextmanager
def running(supervisor: Supervisor, job: str) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=supervisor.run, args=(job,))
    thread.start()
    try:
        yield thread
        thread.join(15)
        assert not thread.is_alive()
    finally:
        supervisor.stop()
        thread.join()


def child_of_this_process(job: str) -> psutil.Process | None:
    for process in psutil.Process().children():
        try:
            if job in process.cmdline() and "dianaq_worker.child" in process.cmdline():
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def in_stage(database: Database, job: str, stage: str) -> Callable[[], bool]:
    return lambda: row_of(database, job).stage == stage


def child_in_float(database: Database, job: str) -> psutil.Process:
    """The child of a job, once it has come to the stage in which some fake pipelines stay."""
    wait_for(in_stage(database, job, "float"))
    child = child_of_this_process(job)
    assert child is not None
    return child


@ON_BOTH
def test_success(database: Database, storage: Storage, supervisor: Supervisor) -> None:
    job = add_job(database, storage, fake.SUCCEED)
    supervisor.run(job)
    row = row_of(database, job)
    assert (row.state, row.attempt, row.error) == ("succeeded", 1, None), storage.log(job, 1).read_text()
    assert row.metrics == {"float": {"val_accuracy": 0.5, "test_accuracy": 0.75}}
    assert states(history(database, job)) == ["queued", "running", "succeeded"]
    with database.read() as session:
        listed = [a.path for a in artifacts.listing(session, job)]
    assert listed == fake.MEMBERS
    assert all((storage.artifacts(job, 1) / path).is_file() for path in listed)
    assert not storage.work(job, 1).exists()


def test_a_second_message_for_the_same_job_is_dropped(
    database: Database, storage: Storage, supervisor: Supervisor
) -> None:
    job = add_job(database, storage, fake.SUCCEED)
    supervisor.run(job)
    before = history(database, job)
    supervisor.run(job)
    assert history(database, job) == before


def test_a_refusal_of_the_pipeline_is_the_jobs_error(
    database: Database, storage: Storage, supervisor: Supervisor
) -> None:
    job = add_job(database, storage, fake.REFUSE)
    supervisor.run(job)
    row = row_of(database, job)
    assert row.state == "failed"
    assert row.error is not None
    assert (row.error["type"], row.error["param"]) == ("quantisation-failed", "conv1")
    assert history(database, job)[-1].body.error.param == "conv1"
    assert not storage.artifacts(job, 1).parent.exists()


def test_an_exception_nobody_foresaw_is_named_and_logged(
    database: Database, storage: Storage, supervisor: Supervisor
) -> None:
    job = add_job(database, storage, fake.BREAK)
    supervisor.run(job)
    row = row_of(database, job)
    assert row.error is not None
    assert (row.state, row.error["type"], row.losses) == ("failed", "internal-error", 0)
    assert "ZeroDivisionError" in row.error["detail"]
    assert "Traceback" in storage.log(job, 1).read_text()
    assert any("nothing to divide" in e.body.message for e in history(database, job) if e.body.type == "log")


def test_cancelled_between_two_steps(database: Database, storage: Storage, supervisor: Supervisor) -> None:
    job = add_job(database, storage, fake.WAIT)
    with running(supervisor, job):
        wait_for(in_stage(database, job, "import"))
        with database.write() as session:
            assert move(session, job, "cancelling", is_in("running"))
    assert states(history(database, job)) == ["queued", "running", "cancelling", "cancelled"]
    assert not storage.work(job, 1).exists()


def test_a_child_that_does_not_listen_is_killed_after_its_job_is_cancelled(
    database: Database, storage: Storage, supervisor: Supervisor
) -> None:
    job = add_job(database, storage, fake.IGNORE_CANCEL)
    with running(supervisor, job):
        child = child_in_float(database, job)
        with database.write() as session:
            assert move(session, job, "cancelling", is_in("running"))
        wait_for(lambda: row_of(database, job).state == "cancelled")
    assert all_gone([child])
    assert row_of(database, job).losses == 0


@ON_BOTH
def test_killed_children_are_replaced_until_the_cap(
    database: Database, storage: Storage, supervisor: Supervisor
) -> None:
    job = add_job(database, storage, fake.HANG)
    for attempt in (1, 2, 3):
        with running(supervisor, job):
            child = child_in_float(database, job)
            os.kill(child.pid, signal.SIGKILL)
        supervisor._stopping.clear()
        row = row_of(database, job)
        assert (row.state, row.losses) == ("failed" if attempt == 3 else "queued", attempt)
    assert row.error is not None
    assert row.error["type"] == "worker-lost"


@ON_BOTH
def test_stopping_hands_the_job_back(database: Database, storage: Storage, supervisor: Supervisor) -> None:
    job = add_job(database, storage, fake.IGNORE_CANCEL)
    with running(supervisor, job):
        child = child_in_float(database, job)
        supervisor.stop()
    row = row_of(database, job)
    assert (row.state, row.losses, row.attempt) == ("queued", 0, 1)
    assert all_gone([child])
    supervisor.run(job)
    assert row_of(database, job).attempt == 1, "a stopping supervisor takes nothing"


@ON_BOTH
def test_an_overtaken_child_is_ended(database: Database, storage: Storage, supervisor: Supervisor) -> None:
    job = add_job(database, storage, fake.HANG)
    with running(supervisor, job):
        child = child_in_float(database, job)
        overtake(database, job)
    assert all_gone([child])
    row = row_of(database, job)
    assert (row.state, row.attempt, row.losses) == ("running", 2, 1)


def test_the_lease_is_kept_while_the_child_works(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue
) -> None:
    job = add_job(database, storage, fake.HANG)
    supervisor = Supervisor(replace(settings, lease_seconds=1.0), database, queue)
    with running(supervisor, job):
        wait_for(in_stage(database, job, "float"))
        first = row_of(database, job).lease_expires
        assert first is not None
        wait_for(lambda: (row_of(database, job).lease_expires or first) > first)
        supervisor.stop()


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows each time that a supervisor sees its child stand still."""
    looks: list[str] = []
    look = leases.look

    def counting(database: Database, job: str, attempt: int) -> Any:
        looks.append(job)
        return look(database, job, attempt)

    monkeypatch.setattr(leases, "look", counting)
    monkeypatch.setattr(supervisor_module, "LOOK_SECONDS", 0.1)
    return looks


def test_a_child_that_stands_still_can_be_cancelled(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(database, storage, fake.HANG)
    supervisor = Supervisor(replace(settings, lease_seconds=600.0), database, queue)
    looks = count_looks(monkeypatch)
    with running(supervisor, job):
        child = child_in_float(database, job)
        child.suspend()
        wait_for(lambda: looks)
        with database.write() as session:
            assert move(session, job, "cancelling", is_in("running"))
    assert all_gone([child])
    assert row_of(database, job).state == "cancelled"


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_child_that_stands_still(
    settings: Settings,
    database: Database,
    storage: Storage,
    queue: JobQueue,
    monkeypatch: pytest.MonkeyPatch,
    *,
    goes_on: bool,
) -> None:
    job = add_job(database, storage, fake.HANG)
    # Continued, it has to be before its lease has run out; not continued, this test waits for that.
    lease = 60.0 if goes_on else 1.0
    supervisor = Supervisor(replace(settings, lease_seconds=lease), database, queue)
    looks = count_looks(monkeypatch)
    with running(supervisor, job):
        child = child_in_float(database, job)
        child.suspend()
        if goes_on:
            seen = len(looks)
            wait_for(lambda: len(looks) > seen + 3)
            first = row_of(database, job).lease_expires
            assert first is not None
            wait_for(lambda: len(looks) > seen + 6)
            assert row_of(database, job).lease_expires == first
            child.resume()
            wait_for(lambda: (row_of(database, job).lease_expires or first) > first)
            supervisor.stop()
    assert all_gone([child])
    row = row_of(database, job)
    assert (row.state, row.losses) == ("queued", 0 if goes_on else 1)
    said = [event.body.message for event in history(database, job) if event.body.type == "log"]
    assert any("was stopped (SIGSTOP) and not continued" in message for message in said) is not goes_on


def test_a_child_that_cannot_even_start(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue
) -> None:
    job = add_job(database, storage)
    supervisor = Supervisor(settings, database, queue, child=(sys.executable, "-c", "raise SystemExit(7)"))
    for _ in range(settings.max_losses):
        supervisor.run(job)
    row = row_of(database, job)
    assert row.error is not None
    assert (row.state, row.error["type"]) == ("failed", "worker-lost")
    assert "code 7" in row.error["detail"]
