"""Running one attempt of a job: claim it, start its child process, keep the lease, see the child to its end.

A deadline is measured here, by a clock that nobody sets, and kept in the row for the next attempt.

The child reports its own success or failure; the supervisor only speaks for a child that cannot. It never
imports torch, so it stays small, and a crash in a native library takes the child alone.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dianaq.errors import DeadlineExceeded, DianaqError
from dianaq.schemas.events import TERMINAL_STATES
from dianaq_service import logs
from dianaq_service.database import Database, JobRow
from dianaq_service.jobs.families import settle
from dianaq_service.queue import JobQueue, Kind
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import leases, limits, processes
from dianaq_worker.cgroup import MemoryGroup
from dianaq_worker.choice import claim_best
from dianaq_worker.patience import patiently

TICK_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""How often the row is renewed and read, at most; a lease lasts many of these."""
FINISH_SECONDS = 10.0
"""A child whose job has ended may take this long to exit."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs attempts one after the other, of jobs for its kind of worker, until it is told to stop.

    Args:
        looked: called each time that it has looked after the attempt that it runs.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        queue: JobQueue,
        child: Sequence[str] | None = None,
        kind: Kind = "cpu",
        looked: Callable[[], None] = lambda: None,
    ) -> None:
        self._looked = looked
        self._kind = kind
        self._settings = settings
        self._database = database
        self._queue = queue
        self._storage = Storage(settings.data_dir)
        self._child = tuple(child or (sys.executable, "-m", "dianaq_worker.child"))
        # Keys are none of the child's business: it reads what users upload.
        self._environment = os.environ | replace(settings, api_key="").to_env()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._busy = False

    def stop(self) -> None:
        """End the running attempt, hand its job back, and take no other."""
        self._stopping.set()

    def is_busy(self) -> bool:
        """Whether a job is being claimed or run."""
        return self._busy

    def retire(self) -> bool:
        """Take no other job; False, and nothing changes, while one is being run or when it was told to stop before."""
        with self._lock:
            if self._busy or self._stopping.is_set():
                return False
            self._stopping.set()
            return True

    def run(self, hint: str) -> None:
        """Run an attempt of the job whose turn it is.

        Args:
            hint: the job that a message told of. It may be another's turn, and this one's message is sent anew.
        """
        with self._lock:
            if self._stopping.is_set():
                return
            self._busy = True
        try:
            self._run(hint)
        finally:
            self._busy = False

    def _run(self, hint: str) -> None:
        settings = self._settings
        lease = settings.lease_seconds
        claimed = patiently(
            lambda: claim_best(self._database, self._kind, self._owner, lease, settings.priority_seconds), lease
        )
        if claimed is None:
            _log.info("no job waits; the message of job %s is dropped", hint)
            return
        job_id, attempt = claimed
        with logs.bound(job_id=job_id, attempt=attempt):
            self._run_attempt(hint, job_id, attempt)

    def _run_attempt(self, hint: str, job_id: str, attempt: int) -> None:
        settings = self._settings
        _log.info("job %s: attempt %d", job_id, attempt)
        if hint != job_id:
            self._pass_on(hint)
        for earlier in range(1, attempt):
            self._storage.discard_attempt(job_id, earlier)
        group = MemoryGroup(settings.cgroup, f"{job_id}-{attempt}", limits.memory(settings))
        child = self._spawn(job_id, attempt, group)
        fault: DianaqError | None = None
        try:
            fault = self._watch(child, job_id, attempt)
            self._end_in_row(job_id, attempt, fault)
        finally:
            still = processes.stands_still(child)
            # One that stands still is not asked.
            processes.stop(child, 0 if still else settings.stop_grace_seconds)
        self._conclude(child.returncode, job_id, attempt, group, fault, still)
        group.close()

    def _pass_on(self, hint: str) -> None:
        try:
            if leases.waits(self._database, hint):
                self._queue.send(hint)
        except SQLAlchemyError as error:
            _log.warning("job %s is left to the sweepers: %s", hint, error)

    def _spawn(self, job_id: str, attempt: int, group: MemoryGroup) -> subprocess.Popen[bytes]:
        log = self._storage.log(job_id, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            return processes.spawn(
                [*self._child, job_id, str(attempt)],
                env=self._environment,
                log=file,
                limits=limits.limits(self._settings, self._kind),
                group=group.own,
            )

    def _watch(self, child: subprocess.Popen[bytes], job_id: str, attempt: int) -> DianaqError | None:
        """Returns when the child has exited, or must be stopped; gives the error that the job is to fail with."""
        lease = self._settings.lease_seconds
        look_every = min(LOOK_SECONDS, lease / 4)
        hours, ran = patiently(lambda: self._deadline(job_id), lease)
        started = renewed = looked = monotonic()
        deadline: float | None = None
        while child.poll() is None and not self._stopping.is_set():
            self._stopping.wait(TICK_SECONDS)
            moment = monotonic()
            if deadline is not None and moment > deadline:
                return None
            if ran + moment - started > hours * 3600:
                return DeadlineExceeded(
                    f"the job has run for its deadline_hours, which are {hours:g}; give it more, or fewer epochs",
                    param="deadline_hours",
                )
            if moment - looked < look_every:
                continue
            looked = moment
            still = processes.stands_still(child)
            try:
                if still:
                    # Its lease is not renewed: whether this one is faster or a sweeper, the job goes on elsewhere.
                    state = leases.look(self._database, job_id, attempt)
                else:
                    state = leases.renew(self._database, job_id, attempt, lease, moment - renewed)
                if state is None and not self._ended_by(job_id, attempt):
                    _log.warning("job %s: attempt %d was overtaken", job_id, attempt)
                    return None
            except SQLAlchemyError as error:
                _log.warning("job %s: the lease could not be renewed: %s", job_id, error)
                if moment - renewed > lease:
                    return None
                continue
            if not still:
                renewed = moment
            elif moment - renewed > lease:
                return None
            self._looked()
            if state is None:
                deadline = deadline or moment + FINISH_SECONDS
            elif state == "cancelling":
                deadline = deadline or moment + self._settings.cancel_grace_seconds
        return None

    def _deadline(self, job_id: str) -> tuple[float, float]:
        """How many hours the job may run, and how many seconds it has run before this attempt."""
        with self._database.read() as session:
            row = session.execute(select(JobRow.spec, JobRow.ran_seconds).where(JobRow.id == job_id)).one()
        return row.spec.get("deadline_hours") or math.inf, row.ran_seconds

    def _end_in_row(self, job_id: str, attempt: int, fault: DianaqError | None) -> None:
        """A job that is being cancelled, or has reached its deadline, ends in its row before its process is ended."""
        try:
            if fault is not None:
                leases.fail(self._database, job_id, attempt, fault.problem())
            with self._database.write() as session:
                leases.end_cancelled(session, job_id, attempt)
        except SQLAlchemyError as error:
            _log.warning("job %s: its end could not be recorded yet: %s", job_id, error)

    def _ended_by(self, job_id: str, attempt: int) -> bool:
        ended = select(JobRow.attempt).where(JobRow.id == job_id, JobRow.state.in_(TERMINAL_STATES))
        with self._database.read() as session:
            return session.scalar(ended) == attempt

    def _conclude(
        self, code: int, job_id: str, attempt: int, group: MemoryGroup, fault: DianaqError | None, still: bool
    ) -> None:
        """Settle what the child left open; nothing if it has reported, or was overtaken.

        Args:
            still: the child had to be ended because it was stopped and not continued.
        """

        def settle_all() -> None:
            if self._stopping.is_set() and fault is None:
                leases.hand_back(self._database, job_id, attempt)
            elif found := fault or self._limit(code, group):
                leases.fail(self._database, job_id, attempt, found.problem())
            else:
                killed = processes.describe_exit(code, out_of_memory=group.has_killed())
                reason = "was stopped (SIGSTOP) and not continued" if still else killed
                if leases.lose(self._database, job_id, attempt, reason, self._settings.max_losses):
                    self._queue.send(job_id)
            self._queue.send(*settle(self._database))
            self._clean(job_id, attempt)

        try:
            patiently(settle_all, self._settings.lease_seconds)
        except SQLAlchemyError:
            # The lease runs out, and a sweeper finds the job.
            _log.exception("job %s: the end of attempt %d could not be recorded", job_id, attempt)

    def _limit(self, code: int, group: MemoryGroup) -> DianaqError | None:
        """The limit that the child's end is due to. Memory around it that ran out is no fault of this job's."""
        if code != 0 and group.own is not None and group.has_killed():
            return limits.of_memory(self._settings)
        return limits.of_exit(code, self._settings)

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
