"""Waiting for a job to come to a point, as its user sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from dianaq import JobHandle
from dianaq.schemas.events import Event

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
"""Far beyond what anything here takes: a test that hangs says so instead of standing still."""


def wait_for(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS, *, pause: float = 0.05) -> T:
    """The first true answer, asked for again after a pause in seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
    return answer


def trained(job: JobHandle, attempt: int, epochs: int = 2) -> bool:
    """Whether an attempt of the job has trained so many epochs of its own."""
    seen = [e for e in job.events() if e.attempt == attempt and e.body.type == "metrics" and e.body.epoch]
    return len(seen) >= epochs


def in_training(job: JobHandle, attempt: int = 1) -> None:
    """Wait until an attempt of the job is in the middle of its training."""
    wait_for(lambda: trained(job, attempt), f"attempt {attempt} of job {job.id} trains")


def running_again(job: JobHandle, after: int) -> None:
    """Wait until an attempt later than `after` runs the pipeline, or the job has ended."""

    def runs() -> bool:
        return any(e.attempt > after and e.body.type in ("stage", "metrics") for e in job.events())

    wait_for(lambda: runs() or job.state in ("succeeded", "failed", "cancelled"), f"job {job.id} runs again")


def states(events: list[Event]) -> list[str]:
    return [event.body.state for event in events if event.body.type == "state"]


def ended(process: psutil.Process) -> bool:
    """Whether a process does nothing any more, also where its parent has not taken notice yet."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
