"""Redis dies, or is away for longer than anybody waits."""

from __future__ import annotations

import time

import pytest

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .stack import SHORT
from .watch import in_training, running_again, wait_for

AWAY_SECONDS = 4 * SHORT["lease_seconds"]
"""Beyond the lease, the resend time, the sender's own patience and Celery's first attempts to connect again."""


@pytest.mark.slow
def test_kill_redis_and_start_it_empty(make_stack: MakeStack, long: Reference, record: Recorder) -> None:
    stack = make_stack(long)
    with stack.client() as client:
        running = client.submit_job(long.spec)
        in_training(running)
        waiting = client.submit_job(long.spec)
        stack.redis.kill()
        late = client.submit_job(long.spec)  # accepted without a broker
        stack.redis.start()
        with record.recovery(
            "`kill -9` of Redis, which starts empty",
            "the running job does not notice; submitting goes on; waiting jobs are sent again",
            "a waiting job works, once the worker is free",
        ):
            running.wait(progress=False)
            running_again(waiting, after=0)
        aftermath.check(stack, [running, waiting, late], long)
        assert running.refresh().attempt == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_redis_is_away_for_longer_than_every_timeout(
    make_stack: MakeStack, long: Reference, record: Recorder, how: str
) -> None:
    stack = make_stack(long)
    with stack.client() as client:
        running = client.submit_job(long.spec)
        in_training(running)
        if how == "stopped":
            stack.redis.terminate()
        else:
            stack.redis.pause()
        waiting = client.submit_job(long.spec)
        time.sleep(AWAY_SECONDS)
        running.wait(progress=False)
        if how == "stopped":
            stack.redis.start()
        else:
            stack.redis.resume()
        with record.recovery(
            f"Redis is {how} for {AWAY_SECONDS:g} s and more",
            "the running job ends in the meantime; submitting goes on; workers connect again by themselves",
            "a job that was submitted meanwhile works",
        ):
            running_again(waiting, after=0)
        aftermath.check(stack, [running, waiting], long)
        assert running.refresh().attempt == 1


@pytest.mark.slow
def test_a_worker_that_starts_before_redis_waits_for_it(make_stack: MakeStack, short: Reference) -> None:
    stack = make_stack(short)
    with stack.client() as client:
        stack.worker.terminate()
        stack.redis.kill()
        stack.worker.start()
        job = client.submit_job(short.spec)
        wait_for(lambda: "Connection refused" in stack.worker.log.read_text(), "the worker misses Redis")
        stack.redis.start()
        aftermath.check(stack, [job], short)
