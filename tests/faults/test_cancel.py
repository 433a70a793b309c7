"""A job is cancelled at every moment of its life."""

from __future__ import annotations

import time

import pytest

from dianaq import JobHandle
from dianaq.errors import Conflict
from dianaq_service.database import JobRow

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .stack import Stack
from .watch import in_training, states, wait_for

CLAIMS = 6
EXPORTS = 5


def test_cancel_before_claim_and_in_training(make_stack: MakeStack, short: Reference, record: Recorder) -> None:
    stack = make_stack(short)
    with stack.client() as client:
        running = client.submit_job(short.spec)
        waiting = client.submit_job(short.spec)
        in_training(running)
        assert waiting.cancel().state == "cancelled"
        with record.recovery("cancel in training", "the child sees it between two steps, and ends", "it is cancelled"):
            running.cancel()
            running.wait(progress=False, raise_on_failure=False)
        aftermath.check(stack, [running, waiting], short)
        assert states(list(running.events())) == ["queued", "running", "cancelling", "cancelled"]
        assert states(list(waiting.events())) == ["queued", "cancelled"]


def test_cancel_after_success(make_stack: MakeStack, short: Reference) -> None:
    stack = make_stack(short)
    with stack.client() as client:
        job = client.submit_job(short.spec)
        job.wait(progress=False)
        before = list(job.events())
        with pytest.raises(Conflict):
            job.cancel()
        assert list(job.events()) == before
        aftermath.check(stack, [job], short)
        assert job.refresh().state == "succeeded"


@pytest.mark.slow
def test_cancel_during_claim(make_stack: MakeStack, short: Reference) -> None:
    """Cancelled in the moments around the claim, a little later each time."""
    stack = make_stack(short)
    with stack.client() as client:
        jobs = []
        for number in range(CLAIMS):
            jobs.append(job := client.submit_job(short.spec))
            time.sleep(number * 0.02)
            job.cancel()
            job.wait(progress=False, raise_on_failure=False)
        aftermath.check(stack, jobs, short)
        assert {job.refresh().state for job in jobs} == {"cancelled"}


@pytest.mark.slow
def test_cancel_in_export(make_stack: MakeStack, short: Reference) -> None:
    """The child is held still as soon as it says that it exports, which takes it a tenth of a second or less."""
    stack = make_stack(short)
    with stack.client() as client:
        jobs = []
        for _ in range(EXPORTS):
            jobs.append(job := client.submit_job(short.spec))
            in_training(job)
            child = stack.child(job.id)
            wait_for(lambda job=job: row(stack, job).stage in ("export", "verify"), "the job exports", pause=0.001)
            child.suspend()
            now = row(stack, job)
            caught = (now.stage, now.state) == ("export", "running") and not stack.is_locked(job.id)
            if caught:
                job.cancel()
            child.resume()
            if caught:
                break
        assert caught, f"the export was over each of {EXPORTS} times"
        aftermath.check(stack, jobs, short)
        assert job.refresh().state == "cancelled"


@pytest.mark.slow
def test_cancel_a_job_that_loses_its_worker(make_stack: MakeStack, long: Reference, record: Recorder) -> None:
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        supervisor, child = stack.stand_still(job.id)
        assert job.cancel().state == "cancelling"
        child.kill()
        supervisor.kill()
        with record.recovery(
            "cancel, and then `kill -9` of child and supervisor",
            "when the lease has run out, the other worker's sweeper ends the job",
            "it is cancelled",
        ):
            job.wait(progress=False, raise_on_failure=False)
        aftermath.check(stack, [job], long)
        assert job.refresh().state == "cancelled"


def row(stack: Stack, job: JobHandle) -> JobRow:
    with stack.database.read() as session:
        return session.get_one(JobRow, job.id)
