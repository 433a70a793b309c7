"""Whether the worker still consumes: it writes to itself, through the broker and its own consumer.

Known trap: after a connection was lost, or while it only seems to be there, a consumer may wait for ever for messages
that never reach it, in a process that looks well. So an idle worker sends itself a message every few seconds, to a
queue that the same consumer takes from. While it runs a job it takes no messages; then renewals of the lease are the
sign.

A consumer that misses many of its own messages in a row, although the broker took them, has gone deaf. The process then
starts anew: the way that heals whatever the reason is. It never does while it runs a job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dianaq_worker.supervisor import Supervisor

MISSED_PINGS = 12
"""A minute of the default pings: longer than Celery may pause between two attempts to connect (30 s)."""

_log = logging.getLogger(__name__)


class Pulse(threading.Thread):
    """Beats until it is stopped.

    Args:
        seconds: between two beats.
        heard: set by whatever shows that the worker works.
        ping: sends the message that sets `heard` once it is received; False when the broker does not take it.
        mark: notes that the worker was heard of.
        restart: starts the process anew.
    """

    def __init__(
        self,
        seconds: float,
        supervisor: Supervisor,
        heard: threading.Event,
        *,
        ping: Callable[[], bool],
        mark: Callable[[], None],
        restart: Callable[[], None],
    ) -> None:
        super().__init__(name="pulse", daemon=True)
        self._seconds = seconds
        self._supervisor = supervisor
        self._heard = heard
        self._ping = ping
        self._mark = mark
        self._restart = restart
        self._stopping = threading.Event()
        self._pinged = False
        self._missed = 0

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.beat()
            except Exception:
                # What watches the others goes on, whatever the broker's library or the disk come up with.
                _log.exception("the worker's pulse could not be taken, which is tried again")
            self._stopping.wait(self._seconds)

    def beat(self) -> None:
        """Look whether the worker was heard of since the last time, and ping it again."""
        busy = self._supervisor.is_busy()
        if self._heard.is_set():
            self._heard.clear()
            self._missed = 0
            self._mark()
        elif busy:
            self._missed = 0
        elif self._pinged:
            self._missed += 1
            if self._missed >= MISSED_PINGS and self._supervisor.retire():
                _log.error("no message comes back from the broker, which took %d; starting anew", self._missed)
                self._restart()
        self._pinged = not busy and self._ping()
