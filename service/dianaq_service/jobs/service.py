"""What can be done with jobs from outside."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from dianaq.errors import Conflict, NotFound
from dianaq.schemas.events import TERMINAL_STATES, State
from dianaq.schemas.resources import Job, Page
from dianaq_service.database import JobRow
from dianaq_service.database.tables import now
from dianaq_service.idempotency import Once
from dianaq_service.jobs import families, kinds
from dianaq_service.jobs.states import is_in, move
from dianaq_service.retention.expiry import artifacts_expire
from dianaq_service.retention.removal import remove_files, remove_rows, successor
from dianaq_service.web.pages import newest_first
from dianaq_service.web.services import Services


def listing(services: Services, owner: str, cursor: str | None, limit: int, state: State | None) -> Page[Job]:
    """The owner's jobs, newest first."""
    query = select(JobRow).where(JobRow.owner == owner)
    if state is not None:
        query = query.where(JobRow.state == state)
    with services.database.read() as session:
        rows, following = newest_first(session, query, JobRow.id, cursor, limit)
    return Page(items=[resource(services, row) for row in rows], next=following)


def get(services: Services, owner: str, job_id: str) -> Job:
    """One job.

    Raises:
        NotFound: the owner has no such job.
    """
    with services.database.read() as session:
        row = find(session, owner, job_id)
        return resource(services, row).model_copy(update={"note": kinds.note(services.settings, row)})


def cancel(services: Services, owner: str, job_id: str, once: Once) -> Job:
    """Cancel a job: at once when nobody has started it; else its attempt is told and ends it.

    Cancelling a job twice is no error.

    Raises:
        NotFound: the owner has no such job.
        Conflict: the job has already succeeded or failed.
    """
    with once.write() as session:
        # Locked: handed back, a job would be neither queued when asked for that, nor running when asked for this.
        row = find(session, owner, job_id, lock=True)
        if not ask_to_end(session, job_id) and row.state not in ("cancelling", "cancelled"):
            raise Conflict(f"job {job_id} has already {row.state} and cannot be cancelled")
        session.expire_all()
        job = resource(services, find(session, owner, job_id))
        once.keep(session, job)
    settle(services)
    return job


def ask_to_end(session: Session, job_id: str) -> bool:
    """Cancel a job that nobody has started, tell the attempt of one that runs; False for any other.

    Its row must be locked.
    """
    return (
        move(session, job_id, "cancelled", is_in("queued"), cancel_requested=now()) is not None
        or move(session, job_id, "cancelling", is_in("running"), cancel_requested=now()) is not None
    )


def settle(services: Services) -> None:
    """Tell the jobs that waited for one which has just ended."""
    services.outbox.put(*families.settle(services.database))


def delete(services: Services, owner: str, job_id: str) -> None:
    """Remove a job with all that belongs to it: events, artifacts, logs.

    Raises:
        NotFound: the owner has no such job.
        Conflict: it has not ended, or a job that has not ended starts from its checkpoint.
    """
    with services.database.write() as session:
        row = find(session, owner, job_id, lock=True)
        if row.state not in TERMINAL_STATES:
            raise Conflict(f"job {job_id} is {row.state}; cancel it, and delete it once it has ended")
        if (needed_by := successor(session, job_id)) is not None:
            raise Conflict(f"job {job_id} is needed by job {needed_by}, which starts from its checkpoint")
        remove_rows(session, row)
    remove_files(services.storage, job_id)


def find(session: Session, owner: str, job_id: str, *, lock: bool = False) -> JobRow:
    """The row of one of the owner's jobs.

    Args:
        lock: let nobody change it until the transaction ends.

    Raises:
        NotFound: there is none; other owners' jobs do not exist either.
    """
    query = select(JobRow).where(JobRow.id == job_id, JobRow.owner == owner)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"there is no job {job_id!r}", param="job_id")
    return row


def resource(services: Services, row: JobRow) -> Job:
    """A job as the API shows it."""
    expires = artifacts_expire(row, services.settings.retention_days_artifacts)
    return Job.model_validate(row, from_attributes=True).model_copy(update={"expires": expires})
