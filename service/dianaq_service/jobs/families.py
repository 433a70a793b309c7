"""Jobs that wait for another job, which they start from.

Such a job is queued, and `waits_for` names its parent: nobody may claim it. Once the parent has ended, `settle`
frees it, or fails it for the parent's reason, and then those that wait for it in turn. Whoever ends a job settles
afterwards; should that process die in between, the next sweep of any worker does it. A job can only wait for one
that was there before it, so there are no cycles.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import aliased

from dianaq.errors import ParentFailed, Problem
from dianaq.schemas.events import TERMINAL_STATES, LogBody
from dianaq_service.database import Database, JobRow
from dianaq_service.events.repository import append
from dianaq_service.jobs.states import is_in, move


def settle(database: Database) -> list[str]:
    """Free or fail every job whose parent has ended, down to the last descendant.

    Several may do so at once: each change is made once.

    Returns:
        Ids of the jobs that were freed, and want to be sent.
    """
    freed = []
    # A round may end jobs that others wait for. A state that is an end stays one, so it may be read beforehand.
    while orphans := _waiting_for_ended(database):
        with database.write() as session:
            for job_id, parent in orphans:
                if parent.state != "succeeded":
                    move(session, job_id, "failed", _waits(parent), error=_problem(parent))
                    continue
                message = f"job {parent.id} has succeeded, this one can start"
                if append(session, job_id, LogBody(message=message), _waits(parent), waits_for=None) is not None:
                    freed.append(job_id)
    return freed


def _waiting_for_ended(database: Database) -> list[tuple[str, JobRow]]:
    """The jobs that wait for one that has ended, in one order for everybody, who then cannot block each other."""
    parent = aliased(JobRow)
    query = (
        select(JobRow.id, parent)
        .join(parent, JobRow.waits_for == parent.id)
        .where(is_in("queued"), parent.state.in_(TERMINAL_STATES))
        .order_by(JobRow.id)
    )
    with database.read() as session:
        return [(job_id, row) for job_id, row in session.execute(query)]


def _waits(parent: JobRow) -> ColumnElement[bool]:
    return and_(is_in("queued"), JobRow.waits_for == parent.id)


def _problem(parent: JobRow) -> Problem:
    """Why the child fails: the parent, its state and its error; down a chain, those of every job up to the first."""
    if parent.error is None:
        why = f"job {parent.id} was {parent.state}"
    else:
        error = Problem.model_validate(parent.error)
        said = error.detail if error.type == ParentFailed.slug else f"{error.type}: {error.detail}"
        why = f"job {parent.id} {parent.state}: {said}"
    return ParentFailed(why, param="start_from").problem()
