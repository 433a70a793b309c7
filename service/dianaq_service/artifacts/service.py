"""Looking artifacts up for their owner."""

from __future__ import annotations

from pathlib import Path

from dianaq.errors import Expired, NotFound
from dianaq.schemas.resources import Artifact
from dianaq_service.artifacts import repository
from dianaq_service.database import JobRow
from dianaq_service.jobs.service import find
from dianaq_service.web.services import Services


def listing(services: Services, owner: str, job_id: str) -> list[Artifact]:
    """The artifacts of a job; none before it has succeeded.

    Raises:
        NotFound: the owner has no such job.
        Expired: its artifacts were removed after their time.
    """
    with services.database.read() as session:
        _check_kept(find(session, owner, job_id))
        return repository.listing(session, job_id)


def locate(services: Services, owner: str, job_id: str, path: str) -> tuple[Artifact, Path]:
    """An artifact and its file. The path must be one of the listing's, so it leads nowhere else.

    Raises:
        NotFound: no such job, or it left no such file.
        Expired: its artifacts were removed after their time.
    """
    with services.database.read() as session:
        job = find(session, owner, job_id)
        _check_kept(job)
        artifact = repository.find(session, job_id, path)
    if artifact is None:
        raise NotFound(f"job {job_id} ({job.state}) has no artifact {path!r}", param="path")
    return artifact, services.storage.artifacts(job_id, job.attempt) / artifact.path


def _check_kept(job: JobRow) -> None:
    if job.expired is not None:
        raise Expired(
            f"the artifacts of job {job.id} expired and were removed at {job.expired:%Y-%m-%d %H:%M} UTC; run the job "
            "again to have the same ones"
        )
