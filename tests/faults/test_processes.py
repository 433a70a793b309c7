"""The processes that run a job are killed, or stand still for a while."""

from __future__ import annotations

import contextlib

import psutil
import pytest
from databases import ON_POSTGRESQL

from dianaq import JobHandle

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .stack import Stack
from .watch import ended, in_training, running_again, states, wait_for

AGAIN = "the next attempt works"


def test_kill_the_child(make_stack: MakeStack, short: Reference, record: Recorder) -> None:
    stack = make_stack(short)
    with stack.client() as client:
        job = client.submit_job(short.spec)
        in_training(job)
        stack.child(job.id).kill()
        with record.recovery(
            "`kill -9` of the child",
            "its supervisor sees it at once and sends the job again, which goes on after its last whole epoch",
            AGAIN,
        ):
            running_again(job, after=1)
        aftermath.check(stack, [job], short)
        assert states(list(job.events())) == ["queued", "running", "queued", "running", "succeeded"]
        assert goes_on(job)


@pytest.mark.slow
def test_kill_the_supervisor(make_stack: MakeStack, long: Reference, record: Recorder) -> None:
    stack = make_stack(long)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        child = stack.child(job.id)
        stack.worker.kill()
        child.wait(20)  # the kernel ends it with its parent
        stack.worker.start()
        with record.recovery(
            "`kill -9` of the supervisor (started again at once)",
            "the kernel ends its child; when the lease has run out, a sweeper finds the job",
            AGAIN,
        ):
            running_again(job, after=1)
        aftermath.check(stack, [job], long)
        assert goes_on(job)


@pytest.mark.slow
def test_kill_the_child_and_the_supervisor(make_stack: MakeStack, long: Reference, record: Recorder) -> None:
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        supervisor = stack.supervisor_of(job.id)
        supervisor.pause()  # so that it sees nothing of its child's end
        stack.child(job.id).kill()
        supervisor.kill()
        with record.recovery(
            "`kill -9` of both, for good (another worker is there)",
            "when the lease has run out, the other worker's sweeper finds the job",
            AGAIN,
        ):
            running_again(job, after=1)
        aftermath.check(stack, [job], long)
        assert goes_on(job)


@pytest.mark.slow
def test_an_attempt_that_stood_still_beyond_its_lease_changes_nothing(
    make_stack: MakeStack, long: Reference, record: Recorder
) -> None:
    """As when a laptop or a virtual machine sleeps: supervisor and child stop, and come back later."""
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        supervisor, child = stack.stand_still(job.id)
        with record.recovery(
            "supervisor and child stand still (`SIGSTOP`) beyond the lease, and then go on",
            "another worker takes the job; the old attempt's next word is refused, and it ends",
            AGAIN,
        ):
            running_again(job, after=1)
        # The child first, so that it is not its supervisor who ends it.
        child.resume()
        wait_for(lambda: ended(child), "the overtaken child ends by itself")
        supervisor.resume()
        aftermath.check(stack, [job], long)
        assert states(list(job.events())).count("running") == 2


@pytest.mark.slow
def test_a_child_that_stands_still_alone(make_stack: MakeStack, long: Reference, record: Recorder) -> None:
    """Its supervisor lives, and could renew the lease for ever."""
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        child = stack.child(job.id)
        child.suspend()
        with record.recovery(
            "the child alone stands still (`SIGSTOP`) beyond the lease, and then goes on",
            "its lease is not renewed, and another attempt takes the job; its supervisor, or its next word, ends it",
            AGAIN,
        ):
            running_again(job, after=1)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.resume()
        wait_for(lambda: ended(child), "the child is ended, or ends by itself")
        aftermath.check(stack, [job], long)
        assert states(list(job.events())).count("running") == 2


@pytest.mark.slow
def test_an_attempt_that_comes_back_after_the_end_changes_nothing(make_stack: MakeStack, long: Reference) -> None:
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        supervisor, child = stack.stand_still(job.id)
        job.wait(progress=False)
        before = list(job.events())
        child.resume()
        wait_for(lambda: ended(child), "the overtaken child ends by itself")
        supervisor.resume()
        aftermath.check(stack, [job], long)
        assert list(job.events()) == before


@ON_POSTGRESQL
def test_an_attempt_that_stands_still_within_a_transaction_stops_nobody(
    make_stack: MakeStack, long: Reference, record: Recorder
) -> None:
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        supervisor, child = stack.stand_still(job.id, locked=True)
        with record.recovery(
            "supervisor and child stand still while one of them holds the job's row locked",
            "PostgreSQL ends a transaction that says nothing for 10 s; then all is as before",
            AGAIN,
        ):
            running_again(job, after=1)
        child.resume()
        wait_for(lambda: ended(child), "the overtaken child ends by itself")
        supervisor.resume()
        aftermath.check(stack, [job], long)
        assert states(list(job.events())).count("running") == 2


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_hands_its_job_back(
    make_stack: MakeStack, long: Reference, record: Recorder
) -> None:
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        supervisor = stack.supervisor_of(job.id)
        with record.recovery(
            "TERM to the worker (another one is there)",
            "it ends its child and hands the job back, which counts as no loss; the other worker's sweeper sends it",
            AGAIN,
        ):
            supervisor.terminate()
            running_again(job, after=1)
        aftermath.check(stack, [job], long)
        assert goes_on(job)
        assert "loss" not in words(job)


@pytest.mark.slow
def test_a_job_that_kills_every_worker_fails(make_stack: MakeStack, long: Reference) -> None:
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        for attempt in range(1, stack.settings.max_losses + 1):
            in_training(job, attempt)
            kill_both(stack, job)
        aftermath.check(stack, [job], long)
        assert job.refresh().state == "failed"
        assert job.job.error is not None
        assert job.job.error.type == "worker-lost"


def kill_both(stack: Stack, job: JobHandle) -> None:
    """Kill the job's child and supervisor, and start the supervisor again."""
    supervisor, child = stack.supervisor_of(job.id), stack.child(job.id)
    supervisor.pause()
    child.kill()
    supervisor.kill()
    supervisor.start()


def words(job: JobHandle) -> str:
    """What the job's history says in words."""
    return "\n".join(event.body.message for event in job.events() if event.body.type == "log")


def goes_on(job: JobHandle) -> bool:
    """Whether a later attempt took a snapshot up."""
    return "after epoch" in words(job)
