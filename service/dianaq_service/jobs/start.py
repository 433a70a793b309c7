"""Where a job starts that goes on from another one: that job's checkpoint."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from dianaq.errors import Conflict, InvalidSpec
from dianaq.schemas.events import ITERATIONS, Iteration
from dianaq.schemas.spec import JobSpec, ZooModel, checkpoint_of
from dianaq_service.artifacts import repository as artifacts
from dianaq_service.database import JobRow, ModelRow
from dianaq_service.storage import Storage


def check_start(session: Session, owner: str, spec: JobSpec, model: ModelRow | None) -> str | None:
    """Refuse a job that cannot start where it says.

    Args:
        model: the file that the job's network comes from.

    Returns:
        The job that it has to wait for, if any.

    Raises:
        InvalidSpec: the owner has no such job, or it is of another network, part or task, of other weights, or skips
            the iteration.
        Conflict: it failed or was cancelled, or left no checkpoint.
    """
    if spec.start is None:
        return None
    # Locked until the child is committed: whoever ends the parent after that sees the child.
    parent = _parent(session, owner, spec.start, lock=True)
    of_parent = JobSpec.model_validate(parent.spec)
    if parent.state == "succeeded":
        _check_left(session, parent, spec.start[1])
    elif parent.state in ("queued", "running"):
        _check_will_leave(parent, of_parent, spec.start[1])
    else:
        raise Conflict(
            f"job {parent.id} is {parent.state}; a job can start from one that has succeeded, or is queued or running",
            param="start_from",
        )
    _check_network(session, owner, spec, model, parent, of_parent)
    if spec.task != of_parent.task:
        raise InvalidSpec(f"job {parent.id} is of the task {of_parent.task}, this one of {spec.task}", param="task")
    return None if parent.state == "succeeded" else parent.id


def _check_network(
    session: Session, owner: str, spec: JobSpec, model: ModelRow | None, parent: JobRow, of_parent: JobSpec
) -> None:
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
    if same and spec.part != of_parent.part:
        of = "the whole network" if of_parent.part is None else f"the part {of_parent.part}"
        raise InvalidSpec(f"job {parent.id} is of {of}; start from a job of the same part", param="part")
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
    if parent.state != "succeeded":
        raise Conflict(f"job {parent.id} is {parent.state}, and has left no checkpoint", param="start_from")
    _check_left(session, parent, spec.start[1])
    return storage.artifacts(parent.id, parent.attempt) / checkpoint_of(spec.start[1])


def _parent(session: Session, owner: str, start: tuple[str, Iteration], *, lock: bool = False) -> JobRow:
    """The job that leaves the checkpoint."""
    job_id = start[0]
    query = select(JobRow).where(JobRow.id == job_id, JobRow.owner == owner)
    row = session.scalar(query.with_for_update(read=True) if lock else query)
    if row is None:
        raise InvalidSpec(f"there is no job {job_id!r} to start from", param="start_from")
    return row


def _check_left(session: Session, parent: JobRow, iteration: Iteration) -> None:
    if artifacts.find(session, parent.id, checkpoint_of(iteration)) is None:
        if parent.expired is not None:
            raise Conflict(f"the checkpoints of job {parent.id} have expired; run it again", param="start_from")
        raise Conflict(
            f"job {parent.id} left no {checkpoint_of(iteration)}, as jobs of older versions; run it again, or start "
            "from the beginning",
            param="start_from",
        )


def _check_will_leave(parent: JobRow, of_parent: JobSpec, iteration: Iteration) -> None:
    """A job leaves the checkpoints of the iterations after the one that it starts from."""
    first = 0 if of_parent.start is None else ITERATIONS.index(of_parent.start[1]) + 1
    leaves = ITERATIONS[first:]
    if iteration not in leaves:
        raise InvalidSpec(
            f"job {parent.id} starts from {of_parent.start_from} and will leave no {checkpoint_of(iteration)}; "
            + (f"start from its {' or '.join(leaves)}" if leaves else "no job can start from it"),
            param="start_from",
        )


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
