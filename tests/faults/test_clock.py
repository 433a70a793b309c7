"""The wall clock jumps: of the whole machine, or of one of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import aftermath, clock
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .stack import Stack
from .watch import in_training, running_again

HOUR = 3600


@pytest.fixture
def shim(tmp_path: Path) -> dict[str, str]:
    return clock.compile_shim(tmp_path)


def jump(stack: Stack, names: list[str], seconds: int) -> None:
    for name in names:
        clock.shift(stack.clock(name), seconds)


ALL = ["redis", "api", "worker0", "worker1"]


@pytest.mark.slow
@pytest.mark.parametrize("hours", [1, -1], ids=["forward", "back"])
@pytest.mark.parametrize("whose", [ALL, ["worker0"]], ids=["everybody", "one worker"])
def test_a_jump_takes_no_job_from_its_worker(
    make_stack: MakeStack, short: Reference, shim: dict[str, str], hours: int, whose: list[str]
) -> None:
    stack = make_stack(short, workers=2, environment=shim, clocks=ALL)
    with stack.client() as client:
        jobs = [client.submit_job(short.spec) for _ in range(3)]
        in_training(jobs[0])
        jump(stack, whose, hours * HOUR)
        aftermath.check(stack, jobs, short)
        assert [client.job(job.id).job.attempt for job in jobs] == [1, 1, 1]


@pytest.mark.slow
def test_a_worker_that_dies_as_the_clock_goes_back_is_missed_in_time(
    make_stack: MakeStack, long: Reference, shim: dict[str, str], record: Recorder
) -> None:
    stack = make_stack(long, workers=2, environment=shim, clocks=ALL)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        supervisor, child = stack.supervisor_of(job.id), stack.child(job.id)
        supervisor.pause()
        child.kill()
        jump(stack, ALL, -HOUR)
        supervisor.kill()
        with record.recovery(
            "the clock goes back one hour as a worker dies",
            "leases are told by clocks that do not jump: the other worker takes the job as if nothing were",
            "the next attempt works",
        ):
            running_again(job, after=1)
        aftermath.check(stack, [job], long)


@pytest.mark.slow
def test_a_message_that_is_lost_as_the_clock_goes_back_is_missed_in_time(
    make_stack: MakeStack, short: Reference, shim: dict[str, str]
) -> None:
    stack = make_stack(short, workers=2, environment=shim, clocks=ALL)
    with stack.client() as client:
        for worker in stack.workers:
            worker.pause()
        job = client.submit_job(short.spec)
        stack.redis_command("FLUSHALL")
        jump(stack, ALL, -HOUR)
        for worker in stack.workers:
            worker.resume()
        aftermath.check(stack, [job], short)
