"""Full disks: how they show, and how much room there must be before something large begins.

An error of a full disk arrives in many coats: the system's own (ENOSPC; EDQUOT where a quota ends first), SQLite's,
PostgreSQL's, or as the context of an exception of a library whose write failed.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from dianaq.errors import DiskFull, InsufficientStorage

_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_SQLITE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""The second is a new connection's, which finds no room for the index of the write-ahead log."""
_POSTGRESQL = "53100"
"""SQLSTATE `disk_full` (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, says that a disk or a quota is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if _says_so(error) or (isinstance(error, DBAPIError) and is_full(error.orig)):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def path_of(error: BaseException | None) -> str | None:
    """The file that a full disk's error names, if it names one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRNOS and error.filename is not None:
            return str(error.filename)
        error = error.__cause__ or error.__context__
    return None


def _says_so(error: BaseException) -> bool:
    if isinstance(error, DiskFull | InsufficientStorage):
        return True
    if isinstance(error, OSError):
        return error.errno in _ERRNOS
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _SQLITE
    return getattr(error, "sqlstate", None) == _POSTGRESQL


def free(folder: Path) -> int:
    """Bytes that may still be written below a folder."""
    return shutil.disk_usage(folder).free


def describe(folder: Path) -> str:
    """What is free on a folder's disk, in words."""
    return f"{free(folder):,} bytes are free on the disk of {folder}"


def check_job(folder: Path, floor: int) -> None:
    """Refuse to start a job that is likely to fill the disk.

    Raises:
        DiskFull: less than the floor is free.
    """
    if free(folder) < floor:
        raise DiskFull(
            f"{describe(folder)}, and a job is started with {floor:,} at least (DIANAQ_MIN_FREE_BYTES); remove "
            "what is not needed any more, and submit the job again",
            param=str(folder),
        )


def check_upload(folder: Path, floor: int, size: int) -> None:
    """Refuse an upload that would leave less than the floor. Says nothing of the service's folders.

    Raises:
        InsufficientStorage: there is no room for `size` bytes.
    """
    room = free(folder) - floor
    if room < size:
        raise InsufficientStorage(
            f"the upload has {size:,} bytes, and the service has room for {max(room, 0):,}; delete models, datasets "
            "and jobs that are not needed any more, or ask its operator",
            param="body",
        )
