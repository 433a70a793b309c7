"""What an attempt writes to the database: events, and the end of the job. Every write is fenced."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from dianaq.errors import Problem
from dianaq.schemas.events import EventBody, MetricsBody, ProgressBody, StageBody
from dianaq.schemas.resources import Artifact
from dianaq_service.artifacts import repository as artifacts
from dianaq_service.counters import observe
from dianaq_service.database import Database, JobRow
from dianaq_service.events.repository import append
from dianaq_service.jobs.states import is_in, move
from dianaq_worker import leases
from dianaq_worker.leases import end_cancelled, held
from dianaq_worker.patience import patiently

T = TypeVar("T")

PROGRESS_SECONDS = 0.5
"""Between two progress events of one label; the last step always gets one. Bounds a long job's history."""
LOOK_SECONDS = 1.0
"""Between two looks at whether the job was cancelled."""


class Overtaken(Exception):
    """The job no longer belongs to this attempt: whatever it does is of no use to anybody."""


class Recorder:
    """The pipeline's `emit` and `should_stop`, and the three ways in which a job can end.

    Args:
        patience: how many seconds to try again when the database is away.
    """

    def __init__(self, database: Database, job_id: str, attempt: int, patience: float = 0.0) -> None:
        self.patience = patience
        self._database = database
        self._job_id = job_id
        self._attempt = attempt
        self._metrics: dict[str, dict[str, float]] = {}
        self._progress: tuple[str, str] | None = None
        self._progress_time = 0.0
        self._counted: tuple[str, str, int, float] | None = None
        self._cancelled = False
        self._looked = 0.0

    def emit(self, body: EventBody) -> None:
        """Append an event.

        Raises:
            Overtaken: the attempt may not write any more.
        """
        values: dict[str, Any] = {}
        if isinstance(body, ProgressBody) and not self._is_due(body):
            return
        if isinstance(body, StageBody) and body.status == "started":
            values["stage"] = body.stage
        if isinstance(body, MetricsBody):
            self._metrics.setdefault(body.stage, {}).update(body.values)
            values["metrics"] = self._metrics

        def write(session: Session) -> None:
            if append(session, self._job_id, body, held(self._attempt), **values) is None:
                raise Overtaken
            if isinstance(body, StageBody) and body.seconds is not None:
                observe(session, "stage_seconds", body.stage, body.seconds)
            if isinstance(body, ProgressBody):
                self._count_steps(session, body)

        self._write(write)

    def should_stop(self) -> bool:
        """Whether the job was cancelled, as of at most `LOOK_SECONDS` ago.

        Raises:
            Overtaken: another attempt has the job.
        """
        if not self._cancelled and monotonic() - self._looked > LOOK_SECONDS:
            state = patiently(self._state, self.patience)
            if state is None:
                raise Overtaken
            self._cancelled = state == "cancelling"
            self._looked = monotonic()
        return self._cancelled

    def succeed(self, files: list[Artifact]) -> bool:
        """Publish the artifacts and end the job; False when it was cancelled or overtaken in the meantime."""

        def write(session: Session) -> bool:
            if move(session, self._job_id, "succeeded", held(self._attempt), is_in("running")) is not None:
                artifacts.add(session, self._job_id, files)
                return True
            if end_cancelled(session, self._job_id, self._attempt):
                return False
            # Written a moment ago, perhaps, by a transaction whose end got lost with its connection.
            done = select(JobRow.id).where(JobRow.id == self._job_id, JobRow.attempt == self._attempt)
            return session.scalar(done.where(is_in("succeeded"))) is not None

        return self._write(write)

    def fail(self, problem: Problem) -> None:
        """End the job with an error; one that was being cancelled ends as cancelled."""
        patiently(lambda: leases.fail(self._database, self._job_id, self._attempt, problem), self.patience)

    def cancel(self) -> None:
        """End the job as cancelled."""
        self._write(lambda session: end_cancelled(session, self._job_id, self._attempt))

    def _write(self, action: Callable[[Session], T]) -> T:
        """A transaction, again while the database is away."""

        def transaction() -> T:
            with self._database.write() as session:
                return action(session)

        return patiently(transaction, self.patience)

    def _state(self) -> str | None:
        """The job's, as long as the attempt has it."""
        with self._database.read() as session:
            return session.scalar(select(JobRow.state).where(JobRow.id == self._job_id, held(self._attempt)))

    def _count_steps(self, session: Session, body: ProgressBody) -> None:
        """Count the steps since the progress event before, with their mean time."""
        before, self._counted = self._counted, (body.stage, body.label, body.step, monotonic())
        if before is not None and before[:2] == (body.stage, body.label) and body.step > before[2]:
            steps = body.step - before[2]
            observe(session, "step_seconds", body.stage, (self._counted[3] - before[3]) / steps, steps)

    def _is_due(self, body: ProgressBody) -> bool:
        label = (body.stage, body.label)
        moment = monotonic()
        if label == self._progress and body.step < body.total and moment - self._progress_time < PROGRESS_SECONDS:
            return False
        self._progress, self._progress_time = label, moment
        return True
