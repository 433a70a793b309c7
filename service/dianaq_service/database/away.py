"""Whether an error says that the database cannot be reached just now, and the same may work in a moment."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_POSTGRESQL = ("08", "25P03", "53300", "57P")
"""What SQLSTATEs of connections that were lost, ended for their silence, or are too many, and of a server that shuts
down or starts begin with
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def is_away(error: BaseException) -> bool:
    """Whether the database, and not what was asked of it, is the reason."""
    if isinstance(error, TimeoutError):
        # All connections were in use, for as long as one waits for them.
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        # The lower bits; the upper ones say why (https://www.sqlite.org/rescode.html).
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _BUSY
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # The server had no say: there was no connection, or it broke.
        return isinstance(error, OperationalError)
    return error.connection_invalidated or str(state).startswith(_POSTGRESQL)
