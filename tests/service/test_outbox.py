"""Whoever submits a job does not wait for the broker."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import cast

import pytest
from sqlalchemy.exc import SQLAlchemyError

from dianaq_service.outbox import Outbox
from dianaq_service.queue import JobQueue

PATIENCE_SECONDS = 20


class Broker:
    """In the place of the queue: answers each sending when it is told to, and as it is told."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answer: Callable[[], bool] = lambda: True
        self.goes_on, self.idle = Event(), Event()

    def send(self, job_id: str) -> bool:
        self.sent.append(job_id)
        self.idle.set()
        assert self.goes_on.wait(PATIENCE_SECONDS)
        return self.answer()

    def close(self) -> None:
        self.sent.append("closed")


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def outbox(broker: Broker) -> Outbox:
    outbox = Outbox(cast(JobQueue, broker))
    outbox.start()
    return outbox


def put(outbox: Outbox, broker: Broker, *ids: str) -> None:
    """Put ids in while the first of them hangs at the broker."""
    broker.goes_on.clear()
    broker.idle.clear()
    outbox.put(ids[0])
    assert broker.idle.wait(PATIENCE_SECONDS)
    for job_id in ids[1:]:
        outbox.put(job_id)


def drain(outbox: Outbox, broker: Broker) -> list[str]:
    """What was sent, once all that was put in is dealt with."""
    broker.goes_on.set()
    outbox.put("last")
    while broker.sent[-1] != "last":
        outbox.join(0.01)
    outbox.close()
    return broker.sent


def test_jobs_are_sent_in_their_order_whatever_the_broker_takes(outbox: Outbox, broker: Broker) -> None:
    put(outbox, broker, "a", "b", "c")
    assert broker.sent == ["a"]
    assert drain(outbox, broker) == ["a", "b", "c", "last", "closed"]


@pytest.mark.parametrize("error", [None, SQLAlchemyError("no database")])
def test_where_one_cannot_be_sent_those_behind_it_are_left_to_the_sweeper(
    outbox: Outbox, broker: Broker, error: Exception | None
) -> None:
    def fails() -> bool:
        broker.answer = lambda: True
        if error is not None:
            raise error
        return False

    broker.answer = fails
    put(outbox, broker, "a", "b", "c")
    broker.goes_on.set()
    while outbox.waits():
        outbox.join(0.01)
    assert drain(outbox, broker) == ["a", "last", "closed"]


@pytest.mark.parametrize("taken", [True, False])
def test_closing_waits_for_the_one_that_is_under_way_alone(outbox: Outbox, broker: Broker, taken: bool) -> None:
    put(outbox, broker, "a", "b")
    broker.answer = lambda: taken
    closing = Thread(target=outbox.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    broker.goes_on.set()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    assert broker.sent == ["a", "closed"]
