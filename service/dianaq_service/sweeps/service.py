"""What can be done with sweeps from outside. Their jobs are jobs like any other."""

from __future__ import annotations

from collections import Counter
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dianaq.errors import DianaqError, NotFound
from dianaq.schemas.events import State
from dianaq.schemas.resources import Page
from dianaq.schemas.sweeps import Sweep, SweepJob, SweepSpec, SweepWithJobs
from dianaq_service.database import JobRow, SweepRow
from dianaq_service.idempotency import Once
from dianaq_service.ids import new_id
from dianaq_service.jobs.intake import add
from dianaq_service.jobs.service import ask_to_end, settle
from dianaq_service.uploads.parts import Found
from dianaq_service.web.pages import newest_first
from dianaq_service.web.services import Services


def create(services: Services, owner: str, spec: SweepSpec, once: Once, parts: Found) -> SweepWithJobs:
    """Check the job of every point, queue all of them in one transaction, and tell the workers.

    Args:
        parts: what was found in the parts of networks that the jobs name.

    Raises:
        InvalidSpec, InvalidDataset, InvalidModel, Conflict: as for a job; the error names the point.
    """
    points = spec.jobs()
    ids = sorted(new_id("job") for _ in points)
    with once.write() as session:
        row = SweepRow(id=new_id("swp"), owner=owner, spec=spec.model_dump(mode="json"))
        session.add(row)
        session.flush()
        free = []
        for number, (job_id, (point, job)) in enumerate(zip(ids, points, strict=True), 1):
            try:
                added = add(session, owner, job, job_id, parts, sweep_id=row.id, point=point)
            except DianaqError as error:
                error.detail = f"{spec.where(number, point)}: {error.detail}"
                raise
            if added.waits_for is None:
                free.append(job_id)
        answer = _with_jobs(session, row)
        once.keep(session, answer)
    services.outbox.put(*free)
    return answer


def listing(services: Services, owner: str, cursor: str | None, limit: int) -> Page[Sweep]:
    """The owner's sweeps, newest first."""
    query = select(SweepRow).where(SweepRow.owner == owner)
    with services.database.read() as session:
        rows, following = newest_first(session, query, SweepRow.id, cursor, limit)
        counts = _states(session, [row.id for row in rows])
    return Page(items=[_resource(row, counts[row.id]) for row in rows], next=following)


def get(services: Services, owner: str, sweep_id: str) -> SweepWithJobs:
    """One sweep.

    Raises:
        NotFound: the owner has no such sweep.
    """
    with services.database.read() as session:
        return _with_jobs(session, find(session, owner, sweep_id))


def cancel(services: Services, owner: str, sweep_id: str, once: Once) -> SweepWithJobs:
    """Cancel what has not ended; nothing, where everything has.

    Raises:
        NotFound: the owner has no such sweep.
    """
    with once.write() as session:
        row = find(session, owner, sweep_id)
        jobs = select(JobRow.id).where(JobRow.sweep_id == sweep_id).order_by(JobRow.id)
        for job_id in session.scalars(jobs.with_for_update()).all():
            ask_to_end(session, job_id)
        answer = _with_jobs(session, row)
        once.keep(session, answer)
    settle(services)
    return answer


def find(session: Session, owner: str, sweep_id: str) -> SweepRow:
    """The row of one of the owner's sweeps.

    Raises:
        NotFound: there is none; other owners' sweeps do not exist either.
    """
    row = session.scalar(select(SweepRow).where(SweepRow.id == sweep_id, SweepRow.owner == owner))
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id!r}", param="sweep_id")
    return row


def _states(session: Session, sweep_ids: list[str]) -> dict[str, Counter[State]]:
    counts: dict[str, Counter[State]] = {sweep_id: Counter() for sweep_id in sweep_ids}
    query = select(JobRow.sweep_id, JobRow.state, func.count()).where(JobRow.sweep_id.in_(sweep_ids))
    for sweep_id, state, count in session.execute(query.group_by(JobRow.sweep_id, JobRow.state)):
        counts[str(sweep_id)][cast("State", state)] = count
    return counts


def _with_jobs(session: Session, row: SweepRow) -> SweepWithJobs:
    columns = select(JobRow.id, JobRow.state, JobRow.point).where(JobRow.sweep_id == row.id).order_by(JobRow.id)
    jobs = [
        SweepJob(id=job_id, state=cast("State", state), point=point)
        for job_id, state, point in session.execute(columns)
    ]
    states = Counter(job.state for job in jobs)
    return SweepWithJobs(**_resource(row, states).model_dump(), jobs=jobs)


def _resource(row: SweepRow, states: Counter[State]) -> Sweep:
    return Sweep(id=row.id, created=row.created, spec=SweepSpec.model_validate(row.spec), states=dict(states))
