"""Events in the database.

A job begins with its first events. Appending another one changes the job's row and inserts the event in one
transaction. The row's UPDATE hands out the sequence number, so numbers are given once and their order is the order of
commits; its condition is the fence: when it does not hold, nothing is written. What the event makes superfluous goes at
the same time (`thinning`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from dianaq.schemas.events import TERMINAL_STATES, Event, EventBody, LogBody
from dianaq_service.database import EventRow, JobRow
from dianaq_service.events import thinning

_BODY: TypeAdapter[EventBody] = TypeAdapter(EventBody)


def begin(session: Session, row: JobRow, *bodies: EventBody) -> None:
    """Add a job that nobody knows yet, with its first events."""
    row.last_seq = len(bodies)
    row.logs = sum(isinstance(body, LogBody) for body in bodies)
    session.add(row)
    for seq, body in enumerate(bodies, 1):
        session.add(EventRow(job_id=row.id, seq=seq, attempt=0, body=body.model_dump(mode="json")))


def append(session: Session, job_id: str, body: EventBody, *where: ColumnElement[bool], **values: Any) -> int | None:
    """Add an event to the job, and set `values` in its row, if the row meets every condition.

    Returns:
        The job's attempt, or None when a condition did not hold and nothing was written.
    """
    line = 1 if isinstance(body, LogBody) else 0
    row = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, *where)
        .values(last_seq=JobRow.last_seq + 1, logs=JobRow.logs + line, **values)
        .returning(JobRow.last_seq, JobRow.attempt, JobRow.logs)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    seq, attempt, logs = row
    thinned, label = thinning.as_thinned(body, logs)
    kept = thinning.shortened(body).model_dump(mode="json")
    added = EventRow(job_id=job_id, seq=seq, attempt=attempt, body=kept, thinned=thinned, label=label)
    session.add(added)
    session.flush()
    thinning.thin(session, added)
    if (note := thinning.note(body, logs)) is not None:
        append(session, job_id, note)
    return int(attempt)


def page(session: Session, job_id: str, after: int, limit: int) -> list[Event]:
    """Up to `limit` events with a number above `after`, oldest first."""
    rows = session.scalars(
        select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > after).order_by(EventRow.seq).limit(limit)
    )
    return [
        Event(seq=row.seq, time=row.time, attempt=row.attempt, body=_BODY.validate_python(row.body)) for row in rows
    ]


@dataclass(frozen=True)
class News:
    """What a job has after some number: its next events, up to `seen`."""

    events: list[Event]
    seen: int
    over: bool
    """The job has ended and nothing comes after `seen`."""


def news(session: Session, seen: Mapping[str, int], limit: int) -> dict[str, News]:
    """Of these jobs those that have ended, are gone, or have events above the number given; up to `limit` of each."""
    query = select(JobRow.id, JobRow.state, JobRow.last_seq).where(JobRow.id.in_(seen))
    jobs = {job_id: (state, last) for job_id, state, last in session.execute(query)}
    found = {}
    for job_id, after in seen.items():
        # A job that is gone has nothing more to tell.
        state, last = jobs.get(job_id, ("cancelled", after))
        if last > after or state in TERMINAL_STATES:
            events = page(session, job_id, after, limit) if last > after else []
            newest = events[-1].seq if events else after
            # The last number may be of an event that was removed. After a full page there may be more to come.
            reached = newest if len(events) == limit else max(last, newest)
            found[job_id] = News(events, reached, over=state in TERMINAL_STATES and reached >= last)
    return found
