"""Telling the workers of new jobs, after whoever submitted them has been answered.

An answer promises that the job is in the database, and nothing about the broker: so it need not wait for that one,
which may be slow or away. What is still in here when the process ends is found by a worker's sweeper, as is what the
broker did not take.
"""

from __future__ import annotations

import logging
from queue import SimpleQueue
from threading import Thread

from sqlalchemy.exc import SQLAlchemyError

from dianaq_service.queue import JobQueue

_log = logging.getLogger(__name__)


class Outbox(Thread):
    """Sends the ids that are put in, one after another, until it is closed."""

    def __init__(self, queue: JobQueue) -> None:
        super().__init__(name="outbox", daemon=True)
        self._queue = queue
        self._ids: SimpleQueue[str | None] = SimpleQueue()
        self._closed = False

    def put(self, job_id: str) -> None:
        """Have a job sent, soon."""
        self._ids.put(job_id)

    def waits(self) -> bool:
        """Whether there are ids that nobody has tried to send yet."""
        return not self._ids.empty()

    def close(self) -> None:
        """Send no more; returns when the one that is under way is sent."""
        self._closed = True
        self._ids.put(None)
        self.join()
        self._queue.close()

    def run(self) -> None:
        left_out = 0
        while (job_id := self._ids.get()) is not None:
            if left_out:
                left_out -= 1
            elif not self._closed and not self._send(job_id):
                # Left to the sweepers, as each would wait for the same broker anew.
                left_out = self._ids.qsize()

    def _send(self, job_id: str) -> bool:
        try:
            return self._queue.send(job_id)
        except SQLAlchemyError as error:
            _log.warning("job %s was sent, which could not be noted: %s", job_id, error)
            return False
