"""Removing jobs, and the artifacts of jobs that stay."""

from __future__ import annotations

import shutil

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dianaq_service.database import ArtifactRow, Database, EventRow, JobRow
from dianaq_service.database.tables import now
from dianaq_service.jobs.states import is_in
from dianaq_service.storage import Storage

UNFINISHED = is_in("queued", "running", "cancelling")


def successor(session: Session, job_id: str) -> str | None:
    """An unfinished job that starts from this one's checkpoint, and so needs its artifacts."""
    start_from = JobRow.spec["start_from"].as_string()
    query = select(JobRow.id).where(UNFINISHED, start_from.startswith(f"{job_id}/", autoescape=True))
    return session.scalar(query.limit(1))


def expire_artifacts(database: Database, storage: Storage, job_id: str) -> bool:
    """Remove the artifacts of an ended job, unless another one needs them; the job and its events stay."""
    with database.write() as session:
        row = session.scalar(select(JobRow).where(JobRow.id == job_id, ~UNFINISHED).with_for_update())
        if row is None or successor(session, job_id) is not None:
            return False
        row.expired = now()
        session.execute(delete(ArtifactRow).where(ArtifactRow.job_id == job_id))
    shutil.rmtree(storage.root / "artifacts" / job_id, ignore_errors=True)
    return True


def remove_rows(session: Session, job: JobRow) -> None:
    """Remove a job and all that belongs to it from the database."""
    for table in (ArtifactRow, EventRow):
        session.execute(delete(table).where(table.job_id == job.id))
    session.delete(job)


def remove_files(storage: Storage, job_id: str) -> None:
    """Remove whatever any attempt of a job left."""
    for folder in ("artifacts", "snapshots"):
        shutil.rmtree(storage.root / folder / job_id, ignore_errors=True)
    for path in (storage.root / "work").glob(f"{job_id}-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (storage.root / "logs").glob(f"{job_id}-*.log"):
        path.unlink(missing_ok=True)
