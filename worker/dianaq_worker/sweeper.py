"""Finding the jobs whose worker is gone, and those that no message leads to any more.

Every worker sweeps; that several do is harmless, because a doubled message is. Jobs that were never sent go
out at once. Those sent a while ago are sent again only when no message is left in the queue of their device:
otherwise theirs may simply be waiting, and a long queue would fill the broker with copies.

Jobs whose parent ended while nobody told them are freed or failed (`dianaq_service.jobs.families`).

Jobs that ended while no attempt of theirs was running left snapshots, which are removed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kombu.exceptions import OperationalError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dianaq.schemas.events import TERMINAL_STATES
from dianaq_service.database import Database, JobRow
from dianaq_service.jobs.families import settle
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import leases
from dianaq_worker.overdue import Observer

_log = logging.getLogger(__name__)


class Sweeper(threading.Thread):
    """Sweeps until it is stopped."""

    def __init__(self, settings: Settings, database: Database, queue: JobQueue, swept: Callable[[], None]) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._settings = settings
        self._database = database
        self._queue = queue
        self._storage = Storage(settings.data_dir)
        self._swept = swept
        self._observer = Observer(settings.lease_seconds)
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        # A worker that starts may stand before a new, empty broker: what was sent to the old one is gone.
        resend_seconds = 0.0
        while not self._stopping.is_set():
            try:
                self.sweep(resend_seconds)
                resend_seconds = self._settings.resend_seconds
                self._swept()
            except (SQLAlchemyError, OperationalError, OSError) as error:
                _log.warning("sweeping failed, and is tried again: %s", error)
            self._stopping.wait(self._settings.sweep_seconds)

    def sweep(self, resend_seconds: float) -> None:
        """One round."""
        for lease in self._observer.overdue(leases.current(self._database)):
            leases.end(self._database, lease, self._settings.max_losses)
        # What is freed is sent below, with all that was never sent.
        settle(self._database)
        self._discard_snapshots()
        unsent, sent_long_ago = leases.to_send(self._database, resend_seconds)
        if sent_long_ago:
            left = self._queue.waiting()
            for device, jobs in sent_long_ago.items():
                unsent += jobs if left[device] == 0 else []
        self._queue.send(*unsent)

    def _discard_snapshots(self) -> None:
        """Remove the snapshots of jobs that have ended, or are not known."""
        kept = self._storage.jobs_with_snapshots()
        if kept:
            with self._database.read() as session:
                query = select(JobRow.id).where(JobRow.id.in_(kept), JobRow.state.not_in(TERMINAL_STATES))
                going_on = set(session.scalars(query))
            for job_id in set(kept) - going_on:
                self._storage.discard_snapshots(job_id)
