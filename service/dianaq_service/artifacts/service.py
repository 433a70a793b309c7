"""Looking artifacts up for their owner."""

from __future__ import annotations

from pathlib import Path

from dianaq.errors import NotFound
from dianaq.resources import Artifact
from dianaq_service.artifacts import repository
from dianaq_service.jobs.service import find
from dianaq_service.web.services import Services


def listing(services: Services, owner: str, job_id: str) -> list[Artifact]:
    """The artifacts of a job; none before it has succeeded.

    Raises:
        NotFound: the owner has no such job.
    """
    with services.database.read() as session:
        find(session, owner, job_id)
        return repository.listing(session, job_id)


def locate(services: Services, owner: str, job_id: str, path: str) -> tuple[Artifact, Path]:
    """An artifact and its file. The path must be one of the listing's, so it leads nowhere else.

    Raises:
        NotFound: no such job, or it left no such file.
    """
    with services.database.read() as session:
        job = find(session, owner, job_id)
        artifact = repository.find(session, job_id, path)
    if artifact is None:
        raise NotFound(f"job {job_id} ({job.state}) has no artifact {path!r}", param="path")
    return artifact, services.storage.artifacts(job_id, job.attempt) / artifact.path
