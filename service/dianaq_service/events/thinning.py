"""What of a job's history is kept: a bounded part of what comes by the thousand, and all of the rest.

- `state`, `stage` and `metrics` events are kept for ever: their number follows from the recipe.
- Of `progress` events the newest of each label is kept, and of those the newest `PROGRESS_KEPT`: one that was
  superseded says nothing about the job any more.
- Of `log` events the first `LOGS_FIRST` and the newest `LOGS_LAST` are kept, as a job may log without end; a note
  in between says so. An attempt's log file has all of them.

Removing happens with the appending, in its transaction, and costs one or two deletes through an index that holds
nothing but what may be removed. Numbers are never given twice, so that those of a thinned history have gaps.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from dianaq.schemas.events import EventBody, LogBody, ProgressBody
from dianaq_service.database import EventRow

PROGRESS_KEPT = 200
"""Labels are mostly epochs: who comes late sees the last hundreds, more than a terminal has lines."""
LOGS_FIRST = 500
"""How a job began, ten times what ours say; a job that has gone wrong says why in its first or last lines."""
LOGS_LAST = 500
MESSAGE_CHARACTERS = 8_000
"""Of a log event: a long traceback. With the numbers above, at most 8 million characters per job."""

Thinned = Literal["progress", "log"]


def shortened(body: EventBody) -> EventBody:
    """The body, with the middle of a message left out that is too long to be kept."""
    if not isinstance(body, LogBody) or len(body.message) <= MESSAGE_CHARACTERS:
        return body
    half = MESSAGE_CHARACTERS // 2
    left_out = len(body.message) - 2 * half
    message = f"{body.message[:half]}\n[{left_out} characters left out]\n{body.message[-half:]}"
    return body.model_copy(update={"message": message})


def as_thinned(body: EventBody, logs: int) -> tuple[Thinned | None, str | None]:
    """Whether an event may be removed one day, as what, and the label that newer ones have in common with it.

    Args:
        logs: the job's log events, with this one.
    """
    if isinstance(body, ProgressBody):
        return "progress", f"{body.stage} {body.label}"
    # The note that follows the first ones is kept with them.
    if isinstance(body, LogBody) and logs > LOGS_FIRST + 1:
        return "log", None
    return None, None


def note(body: EventBody, logs: int) -> LogBody | None:
    """What to say after this event, once in a job."""
    if not isinstance(body, LogBody) or logs != LOGS_FIRST:
        return None
    return LogBody(
        level="warning",
        message=f"this job has logged {LOGS_FIRST} lines: of those from here on, the newest {LOGS_LAST} are kept; "
        "the attempt's log file has all of them",
    )


def thin(session: Session, row: EventRow) -> None:
    """Remove what the event, which was just added, makes superfluous."""
    if row.thinned == "progress":
        superseded = delete(EventRow).where(*_like(row), EventRow.label == row.label, EventRow.seq < row.seq)
        if not session.scalars(superseded.returning(EventRow.seq), execution_options=_UNSEEN).all():
            _keep_newest(session, row, PROGRESS_KEPT)
    elif row.thinned == "log":
        _keep_newest(session, row, LOGS_LAST)


_UNSEEN = {"synchronize_session": False}
"""No session holds the rows that are removed."""


def _like(row: EventRow) -> tuple[ColumnElement[bool], ...]:
    """The condition of the index `events_thinned`, and its first columns."""
    return EventRow.thinned.is_not(None), EventRow.job_id == row.job_id, EventRow.thinned == row.thinned


def _keep_newest(session: Session, row: EventRow, number: int) -> None:
    newest_first = select(EventRow.seq).where(*_like(row)).order_by(EventRow.seq.desc())
    first_too_many = newest_first.offset(number).limit(1).scalar_subquery()
    session.execute(delete(EventRow).where(*_like(row), EventRow.seq <= first_too_many), execution_options=_UNSEEN)
