"""Where a job starts that goes on from another one: that job's checkpoint."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from dianaq.errors import Conflict, InvalidSpec
from dianaq.events import Iteration
from dianaq.spec import JobSpec, ZooModel, checkpoint_of
from dianaq_service.artifacts import repository as artifacts
from dianaq_service.database import JobRow, ModelRow
from dianaq_service.storage import Storage


def check_start(session: Session, owner: str, spec: JobSpec, model: ModelRow | None) -> None:
    """Refuse a job that cannot start where it says.

    Args:
        model: the file that the job's network comes from.

    Raises:
        InvalidSpec: the owner has no such job, or it is of another network, or of other weights.
        Conflict: it has not succeeded, or left no checkpoint.
    """
    if spec.start is None:
        return
    parent = _parent(session, owner, spec.start)
    of_parent = JobSpec.model_validate(parent.spec)
    if isinstance(spec.model, ZooModel) and isinstance(of_parent.model, ZooModel):
        same = spec.model.same_network(of_parent.model)
        if same and model is not None and not _is_content_of(session, model, _origin(session, owner, parent).model_id):
            raise InvalidSpec(
                f"the network of job {parent.id} was not made from these weights; leave them out (the checkpoint has "
                "its own), or name the same file, which must not have been removed",
                param="model.weights",
            )
    elif isinstance(spec.model, ZooModel) or isinstance(of_parent.model, ZooModel):
        same = False
    else:
        same = model is not None and _is_content_of(session, model, parent.model_id)
    if not same:
        raise InvalidSpec(
            f"job {parent.id} is of another network than model; start from a job of the same network, which must "
            "not have been removed",
            param="start_from",
        )


def checkpoint_file(session: Session, storage: Storage, owner: str, spec: JobSpec) -> Path | None:
    """The file of the checkpoint that a job starts with; None for a job that starts at the beginning.

    Raises:
        InvalidSpec, Conflict: see `check_start`.
    """
    if spec.start is None:
        return None
    parent = _parent(session, owner, spec.start)
    return storage.artifacts(parent.id, parent.attempt) / checkpoint_of(spec.start[1])


def _parent(session: Session, owner: str, start: tuple[str, Iteration]) -> JobRow:
    """The job that left the checkpoint."""
    job_id, iteration = start
    row = session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.owner == owner))
    if row is None:
        raise InvalidSpec(f"there is no job {job_id!r} to start from", param="start_from")
    if row.state != "succeeded":
        raise Conflict(
            f"job {job_id} is {row.state}; only a job that has succeeded can be started from", param="start_from"
        )
    if artifacts.find(session, job_id, checkpoint_of(iteration)) is None:
        raise Conflict(
            f"job {job_id} left no {checkpoint_of(iteration)}, as jobs of older versions; run it again, or start "
            "from the beginning",
            param="start_from",
        )
    return row


def _origin(session: Session, owner: str, job: JobRow) -> JobRow:
    """The job of whose file a job's network was made: a zoo network without weights has those of where it started."""
    spec = JobSpec.model_validate(job.spec)
    while spec.upload is None and spec.start is not None:
        job = _parent(session, owner, spec.start)
        spec = JobSpec.model_validate(job.spec)
    return job


def _is_content_of(session: Session, model: ModelRow, other_id: str | None) -> bool:
    """Whether two uploads are the same file: each command that names a file uploads it anew."""
    other = session.get(ModelRow, other_id) if other_id is not None else None
    return other is not None and other.sha256 == model.sha256
