"""Each POST is done once, however often it is sent: under the `Idempotency-Key` that the caller gave it.

The answer is kept in the transaction that makes what the POST is about, so that either both are there or none. The
table's key is what decides: of two that make the same thing, the second finds the answer of the first, rolls back,
and gives that one. Nothing is written beforehand, so nothing is left of a request that died.

While an upload is under way, its process remembers the key and turns a second one away with 409, which spares it the
way in vain. It forgets when the request ends or the process does; other processes are held off by the table.

Only what succeeded is kept. An error made nothing: the same key may be used for the next try, whatever its body.
Answers that have expired count for nothing, and are removed by the housekeeper (`dianaq_service.retention`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from pydantic import BaseModel
from sqlalchemy import bindparam, delete, select, tuple_
from sqlalchemy.orm import Session

from dianaq.errors import KeyInUse, KeyReused
from dianaq_service.database import AnswerRow, Database, Upsert
from dianaq_service.database.tables import now

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
KEEP = timedelta(hours=24)
"""Clients try again for seconds, people and their scripts on the next morning."""
PORTION = 1_000
"""Answers that are removed in one transaction, in some hundredths of a second."""


_FIND = select(AnswerRow).where(
    AnswerRow.owner == bindparam("owner"), AnswerRow.key == bindparam("key"), AnswerRow.created > bindparam("expired")
)
# Only an answer that has expired may be written over.
_ADD = Upsert(
    AnswerRow,
    lambda new: {name: new[name] for name in ("request", "status", "body", "created")},
    where=AnswerRow.created <= bindparam("expired"),
)


class Replay(Exception):
    """The request has been done: this is what it was answered."""

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.body = body


@dataclass
class InFlight:
    """The keys of the uploads that this process is at. Lives in its event loop."""

    _keys: set[tuple[str, str]] = field(default_factory=set)

    @contextmanager
    def hold(self, owner: str, key: str) -> Iterator[None]:
        """Keep a second request with the key away until this one has ended.

        Raises:
            KeyInUse: this is the second one.
        """
        if (owner, key) in self._keys:
            raise KeyInUse(
                f"the first request with the {HEADER} {key!r} is not answered yet; ask again in a moment",
                param=HEADER,
            )
        self._keys.add((owner, key))
        try:
            yield
        finally:
            self._keys.remove((owner, key))


class Once:
    """A POST of an owner, under its key if it has one.

    Args:
        target: method and address, which belong to what is asked.
        status: of the answer when it succeeds.
    """

    def __init__(self, database: Database, owner: str, key: str | None, target: str, status: int) -> None:
        self._database = database
        self._owner = owner
        self._key = key
        self._target = target
        self._status = status
        self._request = ""

    def of(self, body_sha256: str) -> Self:
        """To be called once the whole body is known, and before anything is made of it."""
        self._request = hashlib.sha256(f"{self._target}\n{body_sha256}".encode()).hexdigest()
        return self

    def check(self) -> None:
        """See whether it has been done, before anything costly is.

        Raises:
            Replay: it has been done.
            KeyReused: the key was used for another request.
        """
        if self._key is not None:
            with self._database.read() as session:
                self.see(session)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits when the block ends, for what has not been done yet.

        Raises:
            Replay, KeyReused: as `check`; the block is not entered.
        """
        with self._database.write() as session:
            self.see(session)
            yield session

    def keep(self, session: Session, answer: BaseModel) -> None:
        """Store the answer in the transaction that made what it tells of.

        Raises:
            Replay, KeyReused: another one was faster, and the transaction is to be rolled back.
        """
        if self._key is None:
            return
        assert self._request, "the body was not told"
        moment = now()
        row = {
            "owner": self._owner,
            "key": self._key,
            "request": self._request,
            "status": self._status,
            "body": answer.model_dump_json(by_alias=True),
            "created": moment,
            "expired": moment - KEEP,
        }
        if not _ADD.execute(session, row):
            self.see(session, moment)

    def see(self, session: Session, moment: datetime | None = None) -> None:
        """See in a transaction whether it has been done, as of now or another moment; raises as `check`."""
        if self._key is None:
            return
        mine = {"owner": self._owner, "key": self._key, "expired": (moment or now()) - KEEP}
        row = session.scalar(_FIND, mine)
        if row is None:
            return
        if row.request != self._request:
            raise KeyReused(
                f"the {HEADER} {self._key!r} was used for another request; take a new one for each thing to be done",
                param=HEADER,
            )
        raise Replay(row.status, row.body)


def remove_expired(database: Database, should_stop: Callable[[], bool]) -> None:
    """Remove the answers that nobody is given any more; in portions, between which others have their turn."""
    key = tuple_(AnswerRow.owner, AnswerRow.key)
    expired = select(AnswerRow.owner, AnswerRow.key).where(AnswerRow.created <= now() - KEEP).limit(PORTION)
    removed = PORTION
    while removed == PORTION and not should_stop():
        with database.write() as session:
            removed = session.connection().execute(delete(AnswerRow).where(key.in_(expired))).rowcount
