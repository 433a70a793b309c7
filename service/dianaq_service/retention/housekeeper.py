"""The thread that removes what has expired.

Every API process has one; a lock on a file of the data folder lets one of them at a time do a round. Should the file
system not know locks, two rounds at once do no harm: each removal is decided in a transaction of its own.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import SQLAlchemyError

from dianaq.errors import Conflict, NotFound
from dianaq_service.database import Database, DatasetRow, JobRow, ModelRow
from dianaq_service.database.tables import now
from dianaq_service.idempotency import remove_expired
from dianaq_service.retention.expiry import uploads_expire
from dianaq_service.retention.orphans import remove_orphans
from dianaq_service.retention.removal import expire_artifacts
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_service.uploads.service import DATASETS, MODELS, Kind, remove

_log = logging.getLogger(__name__)


class Housekeeper(threading.Thread):
    """Does a round at once, and then one every `housekeeping_seconds`."""

    def __init__(self, settings: Settings, database: Database, storage: Storage) -> None:
        super().__init__(name="housekeeper", daemon=True)
        self._settings = settings
        self._database = database
        self._storage = storage
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Returns when the round that is under way has come to a stop."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.round()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("housekeeping failed, and is tried again: %s", error)
            self._stopping.wait(self._settings.housekeeping_seconds)

    def round(self) -> bool:
        """Remove what has expired; False when another process does so just now."""
        with (self._storage.root / "housekeeping.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            remove_expired(self._database, self._stopping.is_set)
            self._artifacts()
            for kind in (MODELS, DATASETS):
                self._uploads(kind)
            if not self._stopping.is_set():
                remove_orphans(self._settings, self._database, self._storage)
        return True

    def _artifacts(self) -> None:
        days = self._settings.retention_days_artifacts
        if not days:
            return
        before = now() - timedelta(days=days)
        with self._database.read() as session:
            expired = session.scalars(
                select(JobRow.id).where(JobRow.state == "succeeded", JobRow.finished < before, JobRow.expired.is_(None))
            ).all()
        for job_id in expired:
            if self._stopping.is_set():
                return
            if expire_artifacts(self._database, self._storage, job_id):
                _log.info("job %s: its artifacts have expired", job_id)

    def _uploads(self, kind: Kind[Any]) -> None:
        days = self._settings.retention_days_uploads
        if not days:
            return
        with self._database.read() as session:
            query: Select[Any] = select(kind.table).where(kind.table.created < now() - timedelta(days=days))
            old: list[ModelRow | DatasetRow] = list(session.scalars(query))
            expires = uploads_expire(session, old, kind.used_by, days)
        for row in old:
            when = expires[row.id]
            if self._stopping.is_set():
                return
            if when is None or when > now():
                continue
            try:
                remove(self._database, self._storage, kind, row.owner, row.id)
                _log.info("%s %s has expired", kind.name, row.id)
            except (Conflict, NotFound) as error:  # a job came, or its owner was first
                _log.info("%s", error)
