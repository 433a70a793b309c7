"""Running one attempt of a job: claim it, start its child process, keep the lease, see the child to its end.

The child reports its own success or failure; the supervisor only speaks for a child that cannot. It never
imports torch, so it stays small, and a crash in a native library takes the child alone.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dianaq.events import TERMINAL_STATES
from dianaq_service.database import Database, JobRow
from dianaq_service.jobs.families import settle
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import leases, processes

TICK_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""How often the row is renewed and read, at most; a lease lasts many of these."""
FINISH_SECONDS = 10.0
"""A child whose job has ended may take this long to exit."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs attempts one after the other until it is told to stop."""

    def __init__(
        self, settings: Settings, database: Database, queue: JobQueue, child: Sequence[str] | None = None
    ) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._storage = Storage(settings.data_dir)
        self._child = tuple(child or (sys.executable, "-m", "dianaq_worker.child"))
        # Keys are none of the child's business: it reads what users upload.
        self._environment = os.environ | replace(settings, api_key="").to_env()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the running attempt, hand its job back, and take no other."""
        self._stopping.set()

    def run(self, job_id: str) -> None:
        """Run an attempt of the job, unless somebody else does."""
        if self._stopping.is_set():
            return
        settings = self._settings
        attempt = leases.claim(self._database, job_id, self._owner, settings.lease_seconds)
        if attempt is None:
            _log.info("job %s is not free; its message is dropped", job_id)
            return
        _log.info("job %s: attempt %d", job_id, attempt)
        for earlier in range(1, attempt):
            self._storage.discard_attempt(job_id, earlier)
        child = self._spawn(job_id, attempt)
        try:
            self._watch(child, job_id, attempt)
            self._cancel_in_row(job_id, attempt)
        finally:
            processes.stop(child, settings.stop_grace_seconds)
        self._conclude(child.returncode, job_id, attempt)

    def _spawn(self, job_id: str, attempt: int) -> subprocess.Popen[bytes]:
        log = self._storage.log(job_id, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            command = [*self._child, job_id, str(attempt)]
            return processes.spawn(command, env=self._environment, log=file)

    def _watch(self, child: subprocess.Popen[bytes], job_id: str, attempt: int) -> None:
        """Returns when the child has exited, or must be stopped."""
        lease = self._settings.lease_seconds
        look_every = min(LOOK_SECONDS, lease / 4)
        renewed = looked = monotonic()
        deadline: float | None = None
        while child.poll() is None and not self._stopping.is_set():
            self._stopping.wait(TICK_SECONDS)
            moment = monotonic()
            if deadline is not None and moment > deadline:
                return
            if moment - looked < look_every:
                continue
            looked = moment
            try:
                state = leases.renew(self._database, job_id, attempt, lease)
            except SQLAlchemyError as error:
                _log.warning("job %s: the lease could not be renewed: %s", job_id, error)
                if moment - renewed > lease:
                    return
                continue
            renewed = moment
            if state is None:
                if not self._ended_by(job_id, attempt):
                    _log.warning("job %s: attempt %d was overtaken", job_id, attempt)
                    return
                deadline = deadline or moment + FINISH_SECONDS
            elif state == "cancelling":
                deadline = deadline or moment + self._settings.cancel_grace_seconds

    def _cancel_in_row(self, job_id: str, attempt: int) -> None:
        """A job that is being cancelled is cancelled in its row before its process is ended."""
        try:
            with self._database.write() as session:
                leases.end_cancelled(session, job_id, attempt)
        except SQLAlchemyError as error:
            _log.warning("job %s: its end could not be recorded yet: %s", job_id, error)

    def _ended_by(self, job_id: str, attempt: int) -> bool:
        ended = select(JobRow.attempt).where(JobRow.id == job_id, JobRow.state.in_(TERMINAL_STATES))
        with self._database.read() as session:
            return session.scalar(ended) == attempt

    def _conclude(self, code: int, job_id: str, attempt: int) -> None:
        """Settle what the child left open; nothing if it has reported, or was overtaken."""
        try:
            if self._stopping.is_set():
                leases.hand_back(self._database, job_id, attempt)
            else:
                reason = processes.describe_exit(code)
                if leases.lose(self._database, job_id, attempt, reason, self._settings.max_losses):
                    self._queue.send(job_id)
            for waiting in settle(self._database):
                self._queue.send(waiting)
            self._clean(job_id, attempt)
        except SQLAlchemyError:
            # The lease runs out, and a sweeper finds the job.
            _log.exception("job %s: the end of attempt %d could not be recorded", job_id, attempt)

    def _clean(self, job_id: str, attempt: int) -> None:
        with self._database.read() as session:
            row = session.execute(select(JobRow.state, JobRow.attempt).where(JobRow.id == job_id)).one()
        if (row.state, row.attempt) == ("succeeded", attempt):
            self._storage.discard_work(job_id, attempt)
        else:
            self._storage.discard_attempt(job_id, attempt)
        # The snapshots of a job that goes on are the next attempt's.
        if row.state in TERMINAL_STATES:
            self._storage.discard_snapshots(job_id)
