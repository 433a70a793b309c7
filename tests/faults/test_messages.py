"""Messages are lost, or come many times."""

from __future__ import annotations

import pytest

from dianaq_service.queue import JobQueue

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .watch import in_training, running_again, states

COPIES = 50


def test_the_same_message_comes_many_times(make_stack: MakeStack, short: Reference) -> None:
    stack = make_stack(short, workers=2)
    queue = JobQueue(stack.settings.broker_url, stack.database)
    with stack.client() as client:
        job = client.submit_job(short.spec)
        assert all(queue.send(job.id) for _ in range(COPIES))
        in_training(job)
        assert all(queue.send(job.id) for _ in range(COPIES))
        job.wait(progress=False)
        assert all(queue.send(job.id) for _ in range(COPIES))
        # Comes after the copies: once it has run, they have been received.
        last = client.submit_job(short.spec)
        aftermath.check(stack, [job, last], short)
        assert [states(list(j.events())) for j in (job, last)] == [["queued", "running", "succeeded"]] * 2
    queue.close()


@pytest.mark.slow
def test_every_message_is_lost(make_stack: MakeStack, short: Reference, record: Recorder) -> None:
    stack = make_stack(short)
    with stack.client() as client:
        running = client.submit_job(short.spec)
        in_training(running)
        waiting = client.submit_job(short.spec)
        stack.redis_command("FLUSHALL")
        running.wait(progress=False)
        with record.recovery(
            "every message is lost (`FLUSHALL`)",
            "running jobs do not notice; for waiting ones a sweeper sees an empty queue, and sends them again",
            "a waiting job works, once the worker is free",
        ):
            running_again(waiting, after=0)
        aftermath.check(stack, [running, waiting], short)


@pytest.mark.slow
def test_messages_of_jobs_that_nobody_knows_are_dropped(make_stack: MakeStack, short: Reference) -> None:
    stack = make_stack(short)
    queue = JobQueue(stack.settings.broker_url, stack.database)
    with stack.client() as client:
        assert queue.send("job_unknown")
        job = client.submit_job(short.spec)
        aftermath.check(stack, [job], short)
    queue.close()
