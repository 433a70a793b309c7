"""Whoever submits a job does not wait for the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import cast

import pytest
from sqlalchemy.exc import SQLAlchemyError

from dianaq_service.outbox import Outbox
from dianaq_service.queue import JobQueue

PATIENCE_SECONDS = 20


class Broker:
    """In the place of the queue: takes ids, and answers when it is told to, as it is told."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, ...]] = []
        self.answer: Callable[[], bool] = lambda: True
        self.closed = False
        self._asked, self._answers = Event(), Event()

    def send(self, *job_ids: str) -> bool:
        self.batches.append(job_ids)
        self._asked.set()
        assert self._answers.wait(PATIENCE_SECONDS)
        self._answers.clear()
        return self.answer()

    def close(self) -> None:
        self.closed = True

    def wait_until_asked(self) -> None:
        assert self._asked.wait(PATIENCE_SECONDS)
        self._asked.clear()

    def reply(self) -> None:
        self._answers.set()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def outbox(broker: Broker) -> Iterator[Outbox]:
    outbox = Outbox(cast(JobQueue, broker))
    outbox.start()
    yield outbox
    broker.reply()
    if not broker.closed:
        outbox.close()


def put_behind_one(outbox: Outbox, broker: Broker, *ids: str) -> None:
    """Put ids in while another hangs at the broker."""
    outbox.put("first")
    broker.wait_until_asked()
    for job_id in ids:
        outbox.put(job_id)


def test_those_that_come_while_others_are_sent_go_together(outbox: Outbox, broker: Broker) -> None:
    put_behind_one(outbox, broker, "a", "b", "c")
    broker.reply()
    broker.wait_until_asked()
    assert broker.batches == [("first",), ("a", "b", "c")]


@pytest.mark.parametrize("error", [None, SQLAlchemyError("no database")])
def test_what_comes_behind_one_that_cannot_be_sent_is_left_to_the_sweeper(
    outbox: Outbox, broker: Broker, error: Exception | None
) -> None:
    def fails() -> bool:
        if error is not None:
            raise error
        return False

    broker.answer = fails
    put_behind_one(outbox, broker, "a", "b")
    broker.reply()
    while outbox.waiting:
        outbox.join(0.01)
    outbox.put("last")
    broker.wait_until_asked()
    assert broker.batches == [("first",), ("last",)]


def test_closing_waits_for_what_is_under_way_alone(outbox: Outbox, broker: Broker) -> None:
    put_behind_one(outbox, broker, "a")
    closing = Thread(target=outbox.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    broker.reply()
    closing.join(PATIENCE_SECONDS)
    assert (broker.closed, broker.batches) == (True, [("first",)])
