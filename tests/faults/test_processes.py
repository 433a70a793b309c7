"""The processes that run a job are killed, or stand still for a while."""

from __future__ import annotations

import os
import signal

from dianaq.events import Event

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .stack import Part
from .watch import in_training, running_again, states, wait_for


def test_kill_the_child(make_stack: MakeStack, short: Reference, record: Recorder) -> None:
    stack = make_stack(short)
    with stack.client() as client:
        job = client.submit_job(short.spec)
        in_training(job)
        stack.child(job.id).kill()
        with record.recovery(
            "`kill -9` of the child",
            "its supervisor sees it at once and sends the job again; it goes on after its last epoch",
            "the next attempt works",
        ):
            running_again(job, after=1)
        aftermath.check(stack, [job], short)
        assert states(list(job.events())) == ["queued", "running", "queued", "running", "succeeded"]
        assert "goes on after epoch" in told(list(job.events()))


def told(events: list[Event]) -> str:
    return "\n".join(event.body.message for event in events if event.body.type == "log")
