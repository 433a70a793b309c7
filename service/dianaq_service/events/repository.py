"""Events in the database.

Appending changes the job's row and inserts the event in one transaction. The row's UPDATE hands out the
sequence number, so numbers have no gaps and their order is the order of commits; its condition is the fence:
when it does not hold, nothing is written.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from dianaq.events import TERMINAL_STATES, Event, EventBody
from dianaq_service.database import EventRow, JobRow

_BODY: TypeAdapter[EventBody] = TypeAdapter(EventBody)


def append(session: Session, job_id: str, body: EventBody, *where: ColumnElement[bool], **values: Any) -> int | None:
    """Add an event to the job, and set `values` in its row, if the row meets every condition.

    Returns:
        The job's attempt, or None when a condition did not hold and nothing was written.
    """
    row = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, *where)
        .values(last_seq=JobRow.last_seq + 1, **values)
        .returning(JobRow.last_seq, JobRow.attempt)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    seq, attempt = row
    session.add(EventRow(job_id=job_id, seq=seq, attempt=attempt, body=body.model_dump(mode="json")))
    session.flush()
    return int(attempt)


def page(session: Session, job_id: str, after: int, limit: int) -> list[Event]:
    """Up to `limit` events with a number above `after`, oldest first."""
    rows = session.scalars(
        select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > after).order_by(EventRow.seq).limit(limit)
    )
    return [
        Event(seq=row.seq, time=row.time, attempt=row.attempt, body=_BODY.validate_python(row.body)) for row in rows
    ]


def is_over(session: Session, job_id: str, after: int) -> bool:
    """Whether the job has ended and has no event above `after`: none will ever come."""
    row = session.execute(select(JobRow.state, JobRow.last_seq).where(JobRow.id == job_id)).one_or_none()
    return row is None or (row.state in TERMINAL_STATES and row.last_seq <= after)
