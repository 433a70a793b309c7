"""Files that nothing refers to: of crashed uploads, of attempts that died, of rows that went before their files.

Only what has not been touched for a while is looked at: what is young may be on its way to a row.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select

from dianaq.schemas.events import TERMINAL_STATES
from dianaq_service.database import Database, DatasetRow, JobRow, ModelRow
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_service.uploads.service import drop_blob

DAY = 86400.0
_ATTEMPT = re.compile(r"(job_\w+)-(\d+)(?:\.log)?")

_log = logging.getLogger(__name__)


def remove_orphans(settings: Settings, database: Database, storage: Storage) -> None:
    """One look at every folder of the store."""
    for path in _older(storage.incoming.iterdir(), settings.retention_days_incoming):
        path.unlink(missing_ok=True)
        _log.info("removed an incomplete upload, %s", path.name)
    _blobs(settings.retention_days_orphans, database, storage)
    _attempts(settings, database, storage)


def _blobs(days: float, database: Database, storage: Storage) -> None:
    with database.read() as session:
        known = {
            (owner, sha256)
            for table in (ModelRow, DatasetRow)
            for owner, sha256 in session.execute(select(table.owner, table.sha256))
        }
    for path in _older((storage.root / "blobs").glob("*/*/*"), days):
        owner = path.parent.parent.name
        if (owner, path.name) not in known and drop_blob(database, storage, owner, path.name):
            _log.info("removed a blob that no upload refers to, %s", path.name)


def _attempts(settings: Settings, database: Database, storage: Storage) -> None:
    with database.read() as session:
        query = select(JobRow.id, JobRow.state, JobRow.attempt, JobRow.expired)
        jobs = {row.id: row for row in session.execute(query)}

    def is_wanted(job_id: str, attempt: int) -> bool:
        """Whether the attempt may still write, or its artifacts are the job's."""
        job = jobs.get(job_id)
        return job is not None and job.attempt == attempt and (not _has_ended(job_id) or job.state == "succeeded")

    def _has_ended(job_id: str) -> bool:
        return job_id not in jobs or jobs[job_id].state in TERMINAL_STATES

    days = settings.retention_days_orphans
    for path in _older((storage.root / "artifacts").glob("*/*"), days):
        job_id = path.parent.name
        if not path.name.isdigit() or not is_wanted(job_id, int(path.name)) or jobs[job_id].expired is not None:
            _remove(path)
            with suppress(OSError):  # it holds other attempts
                path.parent.rmdir()
    for path in _older((storage.root / "work").iterdir(), days):
        match = _ATTEMPT.fullmatch(path.name)
        if match is None or _has_ended(match[1]) or not is_wanted(match[1], int(match[2])):
            _remove(path)
    for path in _older((storage.root / "logs").glob("job_*.log"), settings.retention_days_logs):
        match = _ATTEMPT.fullmatch(path.name)
        if match is not None and _has_ended(match[1]):
            path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    _log.info("removed what an attempt left, %s/%s", path.parent.name, path.name)


def _older(paths: Iterable[Path], days: float) -> Iterator[Path]:
    """Those that were last changed so many days ago; none for 0 days, which is for ever."""
    for path in list(paths) if days else ():
        with suppress(FileNotFoundError):  # removed by its own process meanwhile
            if path.stat().st_mtime < time.time() - days * DAY:
                yield path
