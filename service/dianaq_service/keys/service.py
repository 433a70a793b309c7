"""Keys are 256 random bits, and stored as their sha256: nothing to guess, so nothing to stretch."""

from __future__ import annotations

import hashlib
import secrets
import time

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dianaq_service.database import ApiKeyRow, Database

KNOWN_SECONDS = 1.0
"""Clients that ask a hundred times a second are looked up once."""


def make_key() -> str:
    """A fresh key."""
    return f"dq_{secrets.token_urlsafe(32)}"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def add(session: Session, owner: str, key: str, *, configured: bool = False) -> None:
    """Make a key valid."""
    session.merge(ApiKeyRow(sha256=_hash(key), owner=owner, configured=configured))


def configure(database: Database, owner: str, key: str) -> None:
    """Make the operator's key valid, and the one that was configured before it invalid."""
    with database.write() as session:
        # Several processes may start at once, and all add the same.
        database.serialise(session, "configured key")
        session.execute(delete(ApiKeyRow).where(ApiKeyRow.configured))
        if key:
            add(session, owner, key, configured=True)


class Known:
    """The keys that a process has just seen. One that is removed is refused a moment later.

    Lives in its event loop.
    """

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, float]] = {}

    def owner_of(self, key: str) -> str | None:
        """Whom a key belonged to a moment ago; None for one that was not seen then."""
        owner, until = self._owners.get(_hash(key), (None, 0.0))
        return owner if time.monotonic() < until else None

    def see(self, key: str, owner: str) -> None:
        """Remember whom a key belongs to."""
        self._owners[_hash(key)] = (owner, time.monotonic() + KNOWN_SECONDS)


def owner_of(session: Session, key: str) -> str | None:
    """Whom a key belongs to; None for an unknown one."""
    return session.scalar(select(ApiKeyRow.owner).where(ApiKeyRow.sha256 == _hash(key)))
