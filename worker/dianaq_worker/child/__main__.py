"""Runs the pipeline for one attempt of one job and reports how it ended.

Exit codes tell the supervisor nothing: it looks at the job's row. They are for the reader of a log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from dianaq.errors import DianaqError, DiskFull, JobCancelled, Problem
from dianaq.schemas.events import LogBody
from dianaq.schemas.spec import JobSpec
from dianaq_service import disk, logs
from dianaq_service.artifacts.repository import scan
from dianaq_service.database import Database, DatasetRow, JobRow, ModelRow
from dianaq_service.database.away import is_away
from dianaq_service.jobs.start import checkpoint_file
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import limits
from dianaq_worker.child.recorder import Overtaken, Recorder
from dianaq_worker.leases import held
from dianaq_worker.patience import patiently

LOG_LINES = 20
"""How much of a traceback goes into the job's events; all of it is in the attempt's log."""

ROOM_SECONDS = 1.0
"""Between two tries to write down that the disk is full. Cancelling the job, or a lost lease, ends them."""

NICENESS = 10
"""On a machine that trains and serves, a request takes nine times the share of a core that training does: answers come
at once, and heartbeats in time. Where nothing else wants the processor, training has all of it."""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux shares processors between sessions first (sched(7)), a process is nice within its own alone, and the
session has a niceness of its own."""

_log = logging.getLogger(__name__)


def main(job_id: str, attempt: int) -> int:
    # Python ignores it. A library that fails to write would say so in words of its own, or not at all.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    give_way()
    settings = Settings.from_env()
    logs.configure(settings.log_format, logging.INFO, job_id=job_id, attempt=attempt)
    database = Database(settings.database)
    storage = Storage(settings.data_dir)
    recorder = Recorder(database, job_id, attempt, patience=settings.lease_seconds)
    try:
        disk.check_job(storage.root, settings.min_free_bytes)
        run(database, storage, recorder, job_id, attempt)
    except JobCancelled:
        recorder.cancel()
    except Overtaken:
        _log.warning("attempt %d of job %s was overtaken, and ends", attempt, job_id)
        return 3
    except DianaqError as error:
        if disk.is_full(error) and not isinstance(error, DiskFull):
            return _report_full(recorder, storage, job_id, attempt, error)
        _log.error("job %s failed: %s", job_id, error.detail)
        recorder.fail(error.problem())
        return 1
    except Exception as error:
        if disk.is_full(error):
            return _report_full(recorder, storage, job_id, attempt, error)
        if is_away(error):
            _log.error("attempt %d of job %s ends, as the database stayed away: %s", attempt, job_id, error)
            return 4
        limits.make_room()
        _log.exception("job %s failed", job_id)
        exceeded = limits.of_exception(error, settings)
        if exceeded is None:
            return _report(recorder, error)
        recorder.fail(exceeded.problem())
        return 1
    finally:
        database.close()
    return 0


def give_way() -> None:
    """Be nice to the other processes of this machine."""
    os.nice(NICENESS)
    # The kernel has none of these, or takes only so many changes a second: then it is as nice as it can be.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(f"{NICENESS}")


@dataclass(frozen=True)
class _Todo:
    """What the pipeline is given."""

    spec: JobSpec
    model_path: Path | None
    dataset_path: Path
    start_from: Path | None


def _look_up(database: Database, storage: Storage, job_id: str, attempt: int) -> _Todo:
    with database.read() as session:
        job = session.scalar(select(JobRow).where(JobRow.id == job_id, held(attempt)))
        if job is None:
            raise Overtaken
        spec = JobSpec.model_validate(job.spec)
        model = None if job.model_id is None else session.get_one(ModelRow, job.model_id)
        return _Todo(
            spec=spec,
            model_path=None if model is None else storage.blob(job.owner, model.sha256),
            dataset_path=storage.blob(job.owner, session.get_one(DatasetRow, job.dataset_id).sha256),
            start_from=checkpoint_file(session, storage, job.owner, spec),
        )


def run(database: Database, storage: Storage, recorder: Recorder, job_id: str, attempt: int) -> None:
    """The pipeline, and the publication of what it made.

    Raises:
        JobCancelled: the job was cancelled.
        Overtaken: another attempt has the job.
        DianaqError: the pipeline says what is wrong with the model, the data or the recipe.
    """
    todo = patiently(lambda: _look_up(database, storage, job_id, attempt), recorder.patience)
    if recorder.should_stop():
        raise JobCancelled(f"job {job_id} was cancelled")
    # Imported here, and not above: what fails in it (a broken installation) is then reported like the rest.
    from dianaq_quant import pipeline

    work = storage.work(job_id, attempt)
    work.mkdir(parents=True)
    bundle = work / "bundle"
    pipeline.run(
        todo.spec,
        model_path=todo.model_path,
        dataset_path=todo.dataset_path,
        out_dir=bundle,
        emit=recorder.emit,
        should_stop=recorder.should_stop,
        start_from=todo.start_from,
        snapshots=storage.inherit_snapshots(job_id, attempt),
    )
    files = scan(bundle)
    target = storage.artifacts(job_id, attempt)
    target.parent.mkdir(parents=True, exist_ok=True)
    bundle.rename(target)
    if not recorder.succeed(files):
        storage.discard_attempt(job_id, attempt)


def _report_full(recorder: Recorder, storage: Storage, job_id: str, attempt: int, error: Exception) -> int:
    """Report that the disk is full, which the database and the log may be on: so what the attempt made goes first.

    Should that not be enough, somebody else has filled the disk, and room is waited for.
    """
    full = DiskFull(
        f"a write to {disk.path_of(error) or storage.root} found the disk full: {disk.describe(storage.root)}; remove "
        "what is not needed any more, and submit the job again",
        param=disk.path_of(error) or str(storage.root),
    )
    storage.discard_attempt(job_id, attempt)
    storage.discard_snapshots(job_id)
    _log.error("job %s failed: %s", job_id, full.detail)
    while True:
        try:
            recorder.fail(full.problem())
        except DBAPIError as again:
            if not disk.is_full(again):
                raise
            time.sleep(ROOM_SECONDS)
        else:
            return 1


def _report(recorder: Recorder, error: Exception) -> int:
    """Report an exception that the pipeline did not mean to raise."""
    lines = traceback.format_exc().splitlines()[-LOG_LINES:]
    try:
        recorder.emit(LogBody(level="warning", message="\n".join(lines)))
    except Overtaken:
        return 3
    recorder.fail(
        Problem(
            type=DianaqError.slug,
            title=DianaqError.title,
            detail=f"the pipeline raised {type(error).__name__}: {error}",
        )
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
