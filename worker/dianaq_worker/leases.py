"""Who holds a job.

A worker holds a job while it renews its lease. One that is no longer renewed is ended by whoever has watched it for
long enough (`dianaq_worker.overdue`), and the job is queued again. `attempt` grows with every claim and is the fence:
all that an attempt writes is conditional on the row still carrying its number, so one that was paused and overtaken
can change nothing. A deliberate return costs the job nothing; an attempt that just ends (killed, out of memory,
machine gone) counts as a loss, and `max_losses` of them fail the job.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, and_, func, literal, or_, select, update
from sqlalchemy.orm import Session

from dianaq.errors import Problem, WorkerLost
from dianaq.schemas.events import LogBody, State
from dianaq.schemas.spec import Device
from dianaq_service.counters import count
from dianaq_service.database import Database, JobRow
from dianaq_service.database.tables import now
from dianaq_service.events.repository import append
from dianaq_service.jobs.states import is_in, is_ready, move


def held(attempt: int) -> ColumnElement[bool]:
    """The fence: the condition that the job still belongs to this attempt."""
    return and_(JobRow.attempt == attempt, is_in("running", "cancelling"))


@dataclass(frozen=True)
class Lease:
    """A lease as it stands in the row. It is renewed by setting `expires` anew, to a time of its holder's clock."""

    job_id: str
    attempt: int
    expires: datetime


def current(database: Database) -> list[Lease]:
    """The leases of the jobs that somebody holds."""
    with database.read() as session:
        query = select(JobRow.id, JobRow.attempt, JobRow.lease_expires).where(is_in("running", "cancelling"))
        # Whoever holds a job has a lease.
        return [
            Lease(job_id, attempt, cast("datetime", expires)) for job_id, attempt, expires in session.execute(query)
        ]


def waits(database: Database, job_id: str) -> bool:
    """Whether the job waits for a worker alone."""
    with database.read() as session:
        return session.scalar(select(JobRow.id).where(JobRow.id == job_id, is_ready())) is not None


def claim(database: Database, job_id: str, owner: str, seconds: float) -> int | None:
    """Take a job that waits for a worker alone.

    Returns:
        The number of the new attempt; None when the job is not to be had.
    """
    moment = now()
    with database.write() as session:
        return move(
            session,
            job_id,
            "running",
            is_ready(),
            attempt=JobRow.attempt + 1,
            lease_owner=owner,
            lease_expires=moment + timedelta(seconds=seconds),
            started=func.coalesce(JobRow.started, literal(moment, JobRow.started.type)),
            stage=None,
            metrics={},
        )


def renew(database: Database, job_id: str, attempt: int, seconds: float, ran: float = 0.0) -> State | None:
    """Extend the lease, and note that the attempt has run for `ran` seconds more.

    Returns:
        The job's state (`running` or `cancelling`); None when the attempt no longer holds the job.
    """
    with database.write() as session:
        state = session.scalar(
            update(JobRow)
            .where(JobRow.id == job_id, held(attempt))
            .values(lease_expires=now() + timedelta(seconds=seconds), ran_seconds=JobRow.ran_seconds + ran)
            .returning(JobRow.state)
            .execution_options(synchronize_session=False)
        )
        if state is not None:
            count(session, "lease_renewals")
    return cast("State | None", state)


def look(database: Database, job_id: str, attempt: int) -> State | None:
    """What `renew` returns, without a renewal."""
    with database.read() as session:
        return cast("State | None", session.scalar(select(JobRow.state).where(JobRow.id == job_id, held(attempt))))


def hand_back(database: Database, job_id: str, attempt: int) -> None:
    """Return the job because its worker stops. It is free at once, and no loss is counted."""
    with database.write() as session:
        if move(session, job_id, "queued", held(attempt), is_in("running")) is None:
            end_cancelled(session, job_id, attempt)


def end_cancelled(session: Session, job_id: str, attempt: int) -> bool:
    """Make a job that is being cancelled `cancelled`, if the attempt still holds it."""
    return move(session, job_id, "cancelled", held(attempt), is_in("cancelling")) is not None


def fail(database: Database, job_id: str, attempt: int, problem: Problem) -> None:
    """End the job with an error, because it would only end so again; one that is being cancelled is cancelled."""
    with database.write() as session:
        if not end_cancelled(session, job_id, attempt):
            move(session, job_id, "failed", held(attempt), error=problem)


def lose(
    database: Database, job_id: str, attempt: int, reason: str, max_losses: int, *where: ColumnElement[bool]
) -> bool:
    """Note that the attempt ended without a report, for example because it was killed.

    Args:
        where: further conditions, without which nothing is changed.

    Returns:
        Whether the job is queued again and wants to be sent.
    """
    with database.write() as session:
        query = select(JobRow.losses).where(JobRow.id == job_id, held(attempt), *where)
        losses = session.scalar(query.with_for_update())
        if losses is None or end_cancelled(session, job_id, attempt):
            return False
        again = losses + 1 < max_losses
        ending = "the job is started again" if again else "it is not started again"
        message = f"attempt {attempt} {reason} (loss {losses + 1} of {max_losses}); {ending}"
        append(session, job_id, LogBody(level="warning", message=message), losses=losses + 1)
        if again:
            move(session, job_id, "queued", held(attempt))
        else:
            move(session, job_id, "failed", held(attempt), error=_worker_lost(losses + 1, reason).problem())
        return again


def end(database: Database, lease: Lease, max_losses: int) -> None:
    """Take the job from a holder that is gone, unless it has renewed the lease in the meantime."""
    unchanged = JobRow.lease_expires == lease.expires
    lose(database, lease.job_id, lease.attempt, "lost its worker", max_losses, unchanged)


def to_send(database: Database, resend_seconds: float) -> tuple[list[str], dict[Device, list[str]]]:
    """Ids of the jobs that wait for a worker, oldest first: those never sent; by device, those sent a while ago."""
    with database.read() as session:
        query = select(JobRow.id).where(is_ready()).order_by(JobRow.id)
        unsent = session.scalars(query.where(JobRow.sent.is_(None))).all()
        moment = now()
        # Sent in the future: the clock went back since, and nobody can tell when it was.
        long_ago = or_(JobRow.sent < moment - timedelta(seconds=resend_seconds), JobRow.sent > moment)
        sent_long_ago: dict[Device, list[str]] = {}
        for job_id, device in session.execute(query.where(long_ago).add_columns(JobRow.device)):
            sent_long_ago.setdefault(device, []).append(job_id)
    return list(unsent), sent_long_ago


def _worker_lost(losses: int, reason: str) -> WorkerLost:
    return WorkerLost(f"{losses} attempts of the job ended without a report; the last one {reason}")
