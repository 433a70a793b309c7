"""Telling the workers of new jobs, after whoever submitted them has been answered.

An answer promises that the job is in the database, and nothing about the broker: so it need not wait for that one,
which may be slow or away. Ids that come in close together are sent together, at a fraction of the cost. What is still
in here when the process ends is found by a worker's sweeper, as is what the broker did not take.
"""

from __future__ import annotations

import logging
from threading import Event, Lock, Thread

from sqlalchemy.exc import SQLAlchemyError

from dianaq_service.queue import BATCH, JobQueue

GATHER_SECONDS = 0.05
"""The first id of a batch waits for others: a hundredth of what a worker needs to start a job."""

_log = logging.getLogger(__name__)


class Outbox(Thread):
    """Sends the ids that are put in, in their order, until it is closed."""

    def __init__(self, queue: JobQueue) -> None:
        super().__init__(name="outbox", daemon=True)
        self._queue = queue
        self._ids: list[str] = []
        self._lock = Lock()
        self._filled, self._closed = Event(), Event()

    def put(self, *job_ids: str) -> None:
        """Have jobs sent, soon."""
        with self._lock:
            self._ids += job_ids
            self._filled.set()

    @property
    def waiting(self) -> int:
        """How many ids nobody has tried to send yet."""
        return len(self._ids)

    def close(self) -> None:
        """Send no more; returns when what is under way is sent."""
        with self._lock:
            self._closed.set()
            self._filled.set()
        self.join()
        self._queue.close()

    def run(self) -> None:
        while self._filled.wait() and not self._closed.wait(GATHER_SECONDS):
            if not self._send(self._take(BATCH)):
                # Each of those behind it would wait for the same broker anew: the sweepers send them.
                self._take(self.waiting)

    def _take(self, number: int) -> list[str]:
        """The ids that came first."""
        with self._lock:
            taken, self._ids = self._ids[:number], self._ids[number:]
            if not self._ids and not self._closed.is_set():
                self._filled.clear()
            return taken

    def _send(self, job_ids: list[str]) -> bool:
        try:
            return self._queue.send(*job_ids)
        except SQLAlchemyError as error:
            _log.warning("%d jobs were sent at most, which could not be noted: %s", len(job_ids), error)
            return False
