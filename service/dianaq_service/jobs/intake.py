"""How jobs come in: each is checked against what it names, and queued.

Those that are submitted at the same time are stored together, in one transaction: it takes those that came while the
one before was under way, up to a number. So a crowd waits for a few transactions, and one client alone for its own. All
of a process wait while one of them waits for a lock of the database.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from dianaq.errors import DianaqError, InvalidSpec
from dianaq.inspection.fit import check_fit
from dianaq.schemas.events import LogBody
from dianaq.schemas.resources import DatasetInfo, Job, Model
from dianaq.schemas.spec import JobSpec, ZooModel
from dianaq_service.database import Database, DatasetRow, JobRow, ModelRow
from dianaq_service.database.away import is_away
from dianaq_service.disk import is_full
from dianaq_service.idempotency import Once, Replay
from dianaq_service.ids import new_id
from dianaq_service.jobs.start import check_start
from dianaq_service.jobs.states import enter
from dianaq_service.outbox import Outbox
from dianaq_service.uploads.parts import NO_PARTS, Found

Upload = TypeVar("Upload", ModelRow, DatasetRow)

TOGETHER = 50
"""Jobs of one transaction: other writers wait for some hundredths of a second."""

_LOCKED = "locked uploads"
"""Where a session keeps those that its jobs name."""


@dataclass
class Submission:
    """A job that wants to be queued, once."""

    owner: str
    spec: JobSpec
    once: Once
    parts: Found
    answer: Future[Job] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Intake:
    """Queues jobs and tells the workers. Lives in the event loop of a process."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._waiting: list[Submission] = []
        self._storing: asyncio.Task[None] | None = None
        # One of its own: those of the event loop may all wait for something else.
        self._thread = ThreadPoolExecutor(1, "intake")

    def close(self) -> None:
        """Returns when what is being stored is stored."""
        self._thread.shutdown()

    async def submit(self, owner: str, spec: JobSpec, once: Once, parts: Found = NO_PARTS) -> Job:
        """Check a job, queue it, and tell the workers, unless it waits for another job.

        Args:
            parts: see `add`.

        Raises:
            Replay, KeyReused: see `Once`.
            InvalidSpec, InvalidDataset, InvalidModel, Conflict: see `add`.
        """
        submission = Submission(owner, spec, once, parts)
        self._waiting.append(submission)
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_waiting())
        return await submission.answer

    async def _store_waiting(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
                await self._store_some(taken)
        finally:
            self._storing = None

    async def _store_some(self, taken: Sequence[Submission]) -> None:
        outcomes: Sequence[Job | BaseException]
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._store, taken)
        except BaseException as error:  # a fault of this code, or the end of the process: nobody may wait for ever
            outcomes = [RuntimeError(f"the intake failed: {error!r}")] * len(taken)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            for submission, outcome in zip(taken, outcomes, strict=True):
                if submission.answer.cancelled():
                    continue
                if isinstance(outcome, BaseException):
                    submission.answer.set_exception(outcome)
                else:
                    submission.answer.set_result(outcome)

    def _store(self, submissions: Sequence[Submission]) -> list[Job | Exception]:
        """What became of each."""
        try:
            return self._store_together(submissions)
        except Exception as error:
            if len(submissions) == 1 or _concerns_all(error):
                return [error] * len(submissions)
        # Each alone, so that the reason is one's own.
        outcomes: list[Job | Exception] = []
        for submission in submissions:
            if outcomes and _concerns_all(outcomes[-1]):
                outcomes.append(outcomes[-1])
            else:
                outcomes += self._store([submission])
        return outcomes

    def _store_together(self, submissions: Sequence[Submission]) -> list[Job | Exception]:
        """Store all but those that are refused. Raises what the transaction suffered, and leaves nothing then."""
        outcomes: dict[int, Job | Exception] = {}
        rows: dict[int, JobRow] = {}
        with self._database.write() as session:
            with session.no_autoflush:
                # Jobs that others start from are locked in the order of their ids, by everybody.
                for number, submission in sorted(enumerate(submissions), key=lambda one: one[1].spec.start or ()):
                    try:
                        submission.once.see(session)
                        rows[number] = add(session, submission.owner, submission.spec, new_id("job"), submission.parts)
                    except (DianaqError, Replay) as error:
                        outcomes[number] = error
            session.flush()
            for number, row in rows.items():
                outcomes[number] = job = Job.model_validate(row, from_attributes=True)
                submissions[number].once.keep(session, job)
        self._outbox.put(*(row.id for row in rows.values() if row.waits_for is None))
        return [outcomes[number] for number in range(len(submissions))]


def _concerns_all(outcome: Job | Exception) -> bool:
    """Whether it is the database's or the disk's, and no submission's."""
    return isinstance(outcome, Exception) and (is_away(outcome) or is_full(outcome))


def add(session: Session, owner: str, spec: JobSpec, job_id: str, parts: Found, **values: Any) -> JobRow:
    """Check a job against its model, its dataset and the job that it starts from, and queue it, with the next flush.

    Args:
        parts: what was found in the parts of networks that jobs name.

    Raises, before it adds anything:
        InvalidSpec: unknown model, dataset or job to start from, or the recipe does not fit them.
        InvalidDataset: the dataset does not fit the model.
        InvalidModel: the model is weights where a network is needed, or the reverse, or its network is refused.
        Conflict: the job to start from has ended without the checkpoint.
    """
    model = _model(session, owner, spec)
    dataset = _upload(session, owner, DatasetRow, spec.dataset, "dataset")
    info = None if model is None else Model.model_validate(model, from_attributes=True).info
    if model is not None and spec.part is not None:
        info = parts.get((model.id, spec.part), info)
    check_fit(spec, info, DatasetInfo.model_validate(dataset.info))
    row = JobRow(
        id=job_id,
        owner=owner,
        model_id=None if model is None else model.id,
        dataset_id=dataset.id,
        spec=spec.model_dump(mode="json", by_alias=True),
        waits_for=check_start(session, owner, spec, model),
        **values,
    )
    enter(session, row, *([LogBody(message=f"waits for job {row.waits_for}")] if row.waits_for is not None else []))
    return row


def _model(session: Session, owner: str, spec: JobSpec) -> ModelRow | None:
    """The file that the network comes from; none for a zoo network with random weights."""
    param = "model.weights" if isinstance(spec.model, ZooModel) else "model"
    return None if spec.upload is None else _upload(session, owner, ModelRow, spec.upload, param)


def _upload(session: Session, owner: str, table: type[Upload], upload_id: str, param: str) -> Upload:
    # Locked until the transaction ends, so that it cannot be deleted in between; once, however many jobs name it.
    locked: dict[tuple[type[Upload], str], Upload | None] = session.info.setdefault(_LOCKED, {})
    if (table, upload_id) not in locked:
        locked[table, upload_id] = session.get(table, upload_id, with_for_update={"read": True})
    row = locked[table, upload_id]
    if row is None or row.owner != owner:
        raise InvalidSpec(f"there is no {param.replace('.', ' ')} {upload_id!r}; upload it first", param=param)
    return row
