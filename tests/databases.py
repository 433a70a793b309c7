"""Databases for the tests: SQLite files, and a PostgreSQL server of the tests' own, from Debian's package.

The server lives in a temporary folder, listens on a Unix socket there and nowhere else, and trusts whoever may
open the folder. It keeps nothing safe from a crash of the machine, which makes it several times as fast.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

REQUIRED = "DIANAQ_REQUIRE_POSTGRESQL"
"""Set where a run without PostgreSQL would be a mistake: in CI."""
WAIT_SECONDS = 60
"""Starting takes a tenth of one, on a machine that does nothing else."""
OPTIONS = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=100", "-c", "shared_buffers=32MB")


@dataclass
class Postgres:
    """A server that can be stopped and started, and its databases.

    It is stopped as by a crash: nothing but what was committed is there when it starts again.
    """

    folder: Path
    programs: Path

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make the server's files. Its superuser is `dianaq`."""
        data = ["-D", str(self.folder / "data"), "-U", "dianaq", "-A", "trust", "-E", "UTF8", "--no-sync"]
        command = self._command("initdb", *data, "--locale=C.UTF-8")
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=WAIT_SECONDS)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Returns when it takes connections. It dies with the thread that called this, however that ends."""
        options = [*OPTIONS, "-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}"]
        command = self._command("postgres", "-D", str(self.folder / "data"), *options)
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it, and every connection with it."""
        if self._process is not None:
            # https://www.postgresql.org/docs/current/server-shutdown.html
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(WAIT_SECONDS)
            self._process = None

    def waiting(self) -> int:
        """How many of its connections wait for a lock."""
        with self._connect() as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
        return row[0] if row else 0

    def create(self, name: str) -> str:
        """A new, empty database; gives its URL. It is a schema: as good to the tests, and made in milliseconds."""
        with self._connect() as connection:
            connection.execute(f'CREATE SCHEMA "{name}"'.encode())
        return f"postgresql+psycopg://dianaq@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="dianaq", dbname="postgres")

    def _command(self, program: str, *arguments: str) -> list[str]:
        # The server refuses to run as root.
        user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig=QUIT", *user, str(self.programs / program), *arguments]


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
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""For tests of what SQLite does not do."""
