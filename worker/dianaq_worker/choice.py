"""Which of the waiting jobs a free worker takes.

The database decides, not the order of messages. Of the jobs that the kind of worker may run, the first is

1. of the highest priority. Each `ageing` seconds that a job has waited count as one more, up to the highest: whatever
   else is submitted, after two of them every job is among the most urgent;
2. then, of the owner with the fewest running jobs;
3. then, of the owner whose last start lies furthest back, so that owners take turns however many jobs each has;
4. then, the oldest.

A job whose worker was lost waits like the others.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session, aliased

from dianaq_service.database import Database, JobRow
from dianaq_service.database.tables import PRIORITIES, now
from dianaq_service.jobs.states import is_ready
from dianaq_service.queue import Kind, taken_by
from dianaq_worker import leases

HIGHEST = len(PRIORITIES) - 1


def claim_best(database: Database, kind: Kind, owner: str, seconds: float, ageing: float) -> tuple[str, int] | None:
    """Take the job whose turn it is.

    Args:
        owner: the worker, as `leases.claim` notes it.
        seconds: duration of the lease.
        ageing: waiting for so long makes a job one priority more urgent.

    Returns:
        The job and the number of its new attempt; None when no job waits for this kind of worker.
    """
    while True:
        with database.read() as session:
            job_id = _best(session, kind, ageing)
        if job_id is None:
            return None
        attempt = leases.claim(database, job_id, owner, seconds)
        if attempt is not None:
            return job_id, attempt
        # Another worker was first, so one job less waits.


def _best(session: Session, kind: Kind, ageing: float) -> str | None:
    running = aliased(JobRow)
    busy = (
        select(running.owner, func.count().label("jobs"))
        .where(running.state.in_(("running", "cancelling")))
        .group_by(running.owner)
        .subquery()
    )
    earlier = aliased(JobRow)
    served = select(func.max(earlier.started)).where(earlier.owner == JobRow.owner).scalar_subquery()
    return session.scalar(
        select(JobRow.id)
        .outerjoin(busy, busy.c.owner == JobRow.owner)
        .where(is_ready(), JobRow.device.in_(taken_by(kind)))
        .order_by(
            _urgency(ageing).desc(),
            func.coalesce(busy.c.jobs, 0),
            # Databases differ in where they sort what is empty.
            case((served.is_(None), 0), else_=1),
            served,
            JobRow.id,
        )
        .limit(1)
    )


def _urgency(ageing: float) -> ColumnElement[int]:
    moment = now()
    steps = [
        (JobRow.created <= moment - timedelta(seconds=ageing * step), min(HIGHEST, priority + step), priority)
        for step in range(HIGHEST, 0, -1)
        for priority in range(HIGHEST)
    ]
    return case(
        *((and_(waited, JobRow.priority == priority), urgency) for waited, urgency, priority in steps),
        else_=JobRow.priority,
    )
