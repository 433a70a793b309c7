"""Telling the workers of new jobs, after whoever submitted them has been answered.

An answer promises that the job is in the database, and nothing about the broker: so it need not wait for that one,
which may be slow or away. What comes in while a batch is sent goes with the next, at a fraction of the cost. What is
still in here when the process ends is found by a worker's sweeper, as is what the broker did not take.
"""

from __future__ import annotations

import logging
from threading import Condition, Thread

from sqlalchemy.exc import SQLAlchemyError

from dianaq_service.queue import JobQueue

BATCH = 100
"""Ids that are sent together: a tenth of a second's work, which is what closing waits for."""

_log = logging.getLogger(__name__)


class Outbox(Thread):
    """Sends the ids that are put in, in their order, until it is closed."""

    def __init__(self, queue: JobQueue) -> None:
        super().__init__(name="outbox", daemon=True)
        self._queue = queue
        self._ids: list[str] = []
        self._closed = False
        self._changed = Condition()

    def put(self, job_id: str) -> None:
        """Have a job sent, soon."""
        with self._changed:
            self._ids.append(job_id)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """How many ids nobody has tried to send yet."""
        return len(self._ids)

    def close(self) -> None:
        """Send no more; returns when what is under way is sent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.join()
        self._queue.close()

    def run(self) -> None:
        while batch := self._take():
            if not self._send(batch):
                # Each of those behind it would wait for the same broker anew: the sweepers send them.
                with self._changed:
                    self._ids.clear()

    def _take(self) -> list[str]:
        """The next ids, as soon as there are any; none once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._ids or self._closed)
            batch, self._ids = self._ids[:BATCH], self._ids[BATCH:]
            return [] if self._closed else batch

    def _send(self, job_ids: list[str]) -> bool:
        try:
            return self._queue.send(*job_ids)
        except SQLAlchemyError as error:
            _log.warning("%d jobs were sent at most, which could not be noted: %s", len(job_ids), error)
            return False
