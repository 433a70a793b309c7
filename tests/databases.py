"""Databases for the tests: SQLite files, and a PostgreSQL server of the tests' own, from Debian's package.

The server lives in a temporary folder, listens on a Unix socket there and nowhere else, and trusts whoever may
open the folder. It keeps nothing safe from a crash of the machine, which makes it several times as fast.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

REQUIRED = "DIANAQ_REQUIRE_POSTGRESQL"
"""Set where a run without PostgreSQL would be a mistake: in CI."""
STOP_SECONDS = 30
OPTIONS = "-c fsync=off -c full_page_writes=off -c max_connections=100 -c shared_buffers=32MB"


@dataclass
class Postgres:
    """A server that can be stopped and started, and its databases.

    It is stopped as by a crash: nothing but what was committed is there when it starts again.
    """

    folder: Path
    programs: Path

    def initialise(self) -> None:
        """Make the server's files. Its superuser is `dianaq`."""
        data = ["-D", str(self.folder / "data"), "-U", "dianaq", "-A", "trust", "-E", "UTF8", "--no-sync"]
        self._run("initdb", *data, "--locale=C.UTF-8")

    def start(self) -> None:
        """Returns when it takes connections."""
        options = f"{OPTIONS} -c listen_addresses='' -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        """End it, and every connection with it."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def waiting(self) -> int:
        """How many of its connections wait for a lock."""
        with psycopg.connect(host=str(self.folder), user="dianaq", dbname="postgres") as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
        return row[0] if row else 0

    def create(self, name: str) -> str:
        """A new, empty database; gives its URL. It is a schema: as good to the tests, and made in milliseconds."""
        with psycopg.connect(host=str(self.folder), user="dianaq", dbname="postgres") as connection:
            connection.execute(f'CREATE SCHEMA "{name}"'.encode())
        return f"postgresql+psycopg://dianaq@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            # The server refuses to run as root.
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        # Its files and not a pipe: the server would keep a pipe open.
        with (self.folder / "output").open("a+") as output:
            done = subprocess.run(command, cwd=self.folder, stdout=output, stderr=output, timeout=STOP_SECONDS)
            output.seek(0)
            assert done.returncode == 0, output.read()


def _programs() -> Path | None:
    """Debian keeps the server's programs away from PATH; the newest release is taken."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The server; skips where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        message = f"PostgreSQL IS NOT TESTED: `apt-get install postgresql` brings it ({REQUIRED} makes this an error)"
        if os.environ.get(REQUIRED):
            pytest.fail(message)
        pytest.skip(message)
    # Sockets have short paths, and pytest's folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="dianaq-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    server = Postgres(folder, programs)
    try:
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


_numbers = count()


@pytest.fixture
def postgres(postgres_server: Postgres) -> str:
    """URL of a fresh PostgreSQL database."""
    return postgres_server.create(f"test{next(_numbers)}")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh database, without tables: SQLite, and PostgreSQL too in tests marked with `ON_BOTH`."""
    if getattr(request, "param", "sqlite") == "postgresql":
        return str(request.getfixturevalue("postgres"))
    return f"sqlite:///{tmp_path}/test.sqlite"


ON_BOTH = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
"""For tests of what the two could do differently."""
