"""Connections to the database, and the two kinds of transactions made with them."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any

from sqlalchemy import ColumnElement, Connection, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from dianaq.errors import InvalidSpec
from dianaq_service.database.migrations import migrate
from dianaq_service.database.tables import Base

SQLITE_BUSY_SECONDS = 30
"""Writers queue up; every transaction of ours is short, so a longer wait means that something hangs."""

POSTGRESQL_IDLE_SECONDS = 10
"""A process that is stopped in the middle of a transaction keeps its locks, and nobody could take its job from it. The
server ends the session of one that says nothing for so long; the pauses of ours are milliseconds."""

DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg")
"""What is installed with the service and tested with it."""


class Database:
    """An engine, and transactions on it.

    SQLite needs to know at BEGIN whether a transaction will write: one that starts reading and then wants to
    write fails at once, without waiting, when another writer came first. Hence `read` and `write`.
    """

    def __init__(self, url: str) -> None:
        _check_driver(url)
        self.sqlite = make_url(url).get_backend_name() == "sqlite"
        if self.sqlite:
            options: dict[str, Any] = {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}}
        else:
            options = {"pool_pre_ping": True}
        self._engine = create_engine(url, **options)
        if self.sqlite:
            event.listen(self._engine, "connect", _configure_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
            self._reader = self._engine
        else:
            event.listen(self._engine, "connect", _configure_postgresql)
            # As SQLite does: what a reader sees does not change under it, and it changes nothing.
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writer = self._engine.execution_options(writes=True)
        # SQLite lets one writer in at a time, and the others ask again after pauses that grow: of many threads some
        # are passed over for seconds. Within a process they stand in line instead.
        self._turn: AbstractContextManager[object] = Lock() if self.sqlite else nullcontext()

    def create_tables(self) -> None:
        """Bring the tables to the present form. Several processes may do so at once.

        Raises:
            InvalidSpec: a newer program has changed this database.
        """
        with self._writer.begin() as connection:
            if not self.sqlite:
                _advisory_lock(connection, "schema")
            migrate(connection)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database and changes nothing."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits when the block ends, and rolls back when it raises."""
        with self._turn, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def serialise(self, session: Session, name: str) -> None:
        """Let no other writer that names the same thing run until this transaction ends.

        SQLite has one writer at a time anyway.
        """
        if not self.sqlite:
            _advisory_lock(session.connection(), name)

    def close(self) -> None:
        self._engine.dispose()


class Upsert:
    """An INSERT that, where the key is there already, updates the row instead, if it meets a condition.

    Args:
        table: whose primary key it is.
        values: what the row gets, by column, made of the columns of the row that was not inserted.
        where: the condition; it may have parameters.
    """

    def __init__(
        self,
        table: type[Base],
        values: Callable[[ReadOnlyColumnCollection[str, Any]], dict[str, ColumnElement[Any]]],
        where: ColumnElement[bool] | None = None,
    ) -> None:
        # Both databases know it, and SQLAlchemy says it for each of them.
        inserts: tuple[sqlite.Insert | postgresql.Insert, ...] = (sqlite.insert(table), postgresql.insert(table))
        key = inspect(table).primary_key
        self._statements = {
            name: insert.on_conflict_do_update(index_elements=key, set_=values(insert.excluded), where=where)
            for name, insert in zip(("sqlite", "postgresql"), inserts, strict=True)
        }

    def execute(self, session: Session, rows: dict[str, Any] | list[dict[str, Any]]) -> int:
        """Do it for a row, or for each of several; how many were inserted or updated, which is told for one alone."""
        connection = session.connection()
        statement = self._statements[connection.dialect.name]
        return connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount


def _check_driver(url: str) -> None:
    """Refuse a URL of another database. Only its first part is repeated: the rest may hold a password."""
    driver, colon, _ = url.partition("://")
    if driver not in DRIVERS:
        raise InvalidSpec(
            "DIANAQ_DATABASE_URL takes sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME, "
            f"got {driver + '://...' if colon else 'something that is no URL'!r}",
            param="DIANAQ_DATABASE_URL",
        )


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver's own idea of when a transaction begins is switched off; `_begin_sqlite` says it.
    connection.isolation_level = None
    cursor = connection.cursor()
    # Readers do not block the writer; a commit survives a crash of the process, and of the machine with the
    # exception of the last moments (https://www.sqlite.org/pragma.html#pragma_synchronous).
    _insist(lambda: cursor.execute("PRAGMA journal_mode=WAL"))
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _configure_postgresql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{POSTGRESQL_IDLE_SECONDS}s'")
    connection.commit()


def _insist(statement: Callable[[], object]) -> None:
    """Switching to WAL fails at once, timeout or not, while another process does the same."""
    deadline = time.monotonic() + SQLITE_BUSY_SECONDS
    while True:
        try:
            statement()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _advisory_lock(connection: Connection, name: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": zlib.crc32(name.encode())})
