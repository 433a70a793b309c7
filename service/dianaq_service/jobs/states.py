"""How a job gets from one state to the next.

    queued -> running -> succeeded | failed | cancelled
    queued -> cancelled                 nobody had started it
    queued -> failed                    the job that it waited for did not succeed (`families`)
    running -> cancelling -> cancelled  the attempt is told first
    running -> queued                   handed back, or lost with its process

A job enters as queued (`enter`). Every move is one conditional UPDATE with its event in the same transaction: whoever
comes second changes nothing. The API and the worker both move jobs with `move`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import Session

from dianaq.errors import Problem
from dianaq.schemas.events import TERMINAL_STATES, EventBody, State, StateBody
from dianaq_service.counters import count
from dianaq_service.database import JobRow
from dianaq_service.database.tables import now
from dianaq_service.events.repository import append, begin


def enter(session: Session, row: JobRow, *bodies: EventBody) -> None:
    """Add a new job, in its first state; further events may follow."""
    row.state = "queued"
    begin(session, row, StateBody(state="queued"), *bodies)
    count(session, "moves", "queued")


def move(
    session: Session,
    job_id: str,
    to: State,
    *where: ColumnElement[bool],
    error: Problem | None = None,
    **values: Any,
) -> int | None:
    """Move the job to a state if its row meets every condition.

    Returns:
        The job's attempt, or None when the job stays as it is.
    """
    if to in TERMINAL_STATES:
        values |= {"finished": now(), "lease_owner": None, "lease_expires": None}
    if to == "queued":
        # `sent` is cleared for the sweeper, which then sends the job at its next round.
        values |= {"lease_owner": None, "lease_expires": None, "stage": None, "sent": None}
    if error is not None:
        values["error"] = error.model_dump()
    attempt = append(session, job_id, StateBody(state=to, error=error), *where, state=to, **values)
    if attempt is not None:
        count(session, "moves", to)
    return attempt


def is_in(*states: State) -> ColumnElement[bool]:
    """The condition that the job is in one of these states."""
    return JobRow.state.in_(states)


def is_ready() -> ColumnElement[bool]:
    """The condition that the job is queued, and waits for a worker alone."""
    return and_(is_in("queued"), JobRow.waits_for.is_(None))
