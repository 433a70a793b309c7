"""The service as separate processes that a test can kill, pause and start again one by one.

Unlike `dianaq up`, nobody here notices that a part ended: whatever recovers does so by itself, or because the
test starts the part again as an operator's service manager would.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from sqlalchemy import make_url, select
from sqlalchemy.exc import OperationalError

from dianaq import Client, DianaqError
from dianaq_service.database import Database, JobRow
from dianaq_service.keys.service import make_key
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import processes
from dianaq_worker.embedded import redis

from . import clock
from .watch import wait_for

MARKER = "DIANAQ_FAULTS"
"""In the environment of every process of a stack, with the stack's own name: what is left of it is found by that."""

GRACE_SECONDS = 20.0

SHORT: dict[str, Any] = {
    "lease_seconds": 4.0,
    "sweep_seconds": 0.5,
    "resend_seconds": 2.0,
    "cancel_grace_seconds": 3.0,
    "stop_grace_seconds": 3.0,
    "housekeeping_seconds": 1.0,
    "min_free_bytes": 0,
}
"""The service's own times, made short so that a fault and its recovery fit into a test, and small disks accepted."""


class Part:
    """One process of the stack, started as often as the test wants."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._command, self._environment, self.log = command, environment, log
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Part {self.name}>"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, **environment: str) -> None:
        assert not self.runs
        with self.log.open("ab") as log:
            self._process = processes.spawn(self._command, env=self._environment | environment, log=log)

    def kill(self) -> None:
        """`kill -9`; only this process, and not those that it started."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """TERM, as a service manager does."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and its process group, whatever state it is in."""
        if self._process is not None:
            if self.runs:
                self.resume()
            processes.stop(self._process, GRACE_SECONDS)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self.pid, number)
        self._process.wait(GRACE_SECONDS)


class Stack:
    """Redis, the API and some workers, as a context manager.

    Args:
        folder: for data, logs and Redis.
        database_url: default SQLite in the data folder.
        workers: how many; each has a supervisor of its own.
        settings: further fields of `Settings`.
        environment: further variables of all processes.
        clocks: parts whose wall clocks are going to be shifted.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str = "",
        *,
        workers: int = 1,
        settings: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        clocks: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.name = secrets.token_hex(8)
        self.settings = Settings(
            **{
                "data_dir": folder / "data",
                "database_url": database_url,
                "broker_url": f"redis://127.0.0.1:{(redis_port := _free_port())}/0",
                "port": _free_port(),
                "api_key": make_key(),
                **SHORT,
                **(settings or {}),
            }
        )
        self.storage = Storage(self.settings.data_dir)
        self.database = Database(self.settings.database)
        self._environment = os.environ | {
            MARKER: self.name,
            # The same bits without them, and a child is in training a second sooner.
            "DIANAQ_NO_KERNELS": "1",
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        python = (sys.executable, "-m")
        self._redis_port = redis_port
        self.redis = self._part("redis", _redis_command(folder, redis_port), self.settings)
        self.api = self._part("api", [*python, "dianaq_service"], self.settings)
        for name in clocks:
            clock.shift(self.clock(name), 0)
        keyless = replace(self.settings, api_key="")
        self.workers = [self._part(f"worker{n}", [*python, "dianaq_worker"], keyless) for n in range(workers)]

    def _part(self, name: str, command: list[str], settings: Settings) -> Part:
        environment = self._environment | settings.to_env() | {clock.FILE: str(self.clock(name))}
        return Part(name, command, environment, self.folder / f"{name}.log")

    def clock(self, name: str) -> Path:
        """By how much the wall clock of a part (and of its children) is wrong; see `clock`."""
        return self.folder / f"{name}.clock"

    def __enter__(self) -> Self:
        self.storage.create()
        self.database.create_tables()
        try:
            for part in self.parts:
                part.start()
            self.wait_until_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            left = [process.cmdline() for process in self.processes()]
            assert not left, f"processes outlived the stack: {left}"

    def close(self) -> None:
        for part in reversed(self.parts):
            part.stop()
        self.database.close()

    @property
    def parts(self) -> list[Part]:
        return [self.redis, self.api, *self.workers]

    @property
    def worker(self) -> Part:
        return self.workers[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def client(self) -> Client:
        return Client(self.url, self.settings.api_key)

    def answers(self) -> bool:
        """Whether the API is healthy."""
        try:
            with self.client() as client:
                return client.health().status == "ok"
        except DianaqError:
            return False

    def wait_until_up(self) -> None:
        wait_for(self.redis_answers, "Redis answers")
        wait_for(self.answers, "the API answers")

    def redis_answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._redis_port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def redis_command(self, *words: str) -> None:
        """Send Redis a command and wait for its answer."""
        line = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self._redis_port), timeout=20) as connection:
            connection.sendall(f"*{len(words)}\r\n{line}".encode())
            answer = connection.recv(4096)
        assert not answer.startswith(b"-"), answer

    def processes(self) -> Iterator[psutil.Process]:
        """All living processes that were started by this stack, however far down."""
        for process in psutil.process_iter():
            # What belongs to others, or has just ended, is not ours.
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARKER) == self.name:
                    yield process

    def children(self, job_id: str) -> list[psutil.Process]:
        """The processes that run an attempt of the job."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if "dianaq_worker.child" in (command := process.cmdline()) and job_id in command:
                    found.append(process)
        return found

    def child(self, job_id: str) -> psutil.Process:
        """The one process that runs the job."""
        (child,) = self.children(job_id)
        return child

    def supervisor_of(self, job_id: str) -> Part:
        """The worker whose child runs the job."""
        parent = self.child(job_id).ppid()
        (found,) = (worker for worker in self.workers if worker.pid == parent)
        return found

    def stand_still(self, job_id: str, *, locked: bool = False) -> tuple[Part, psutil.Process]:
        """Stop supervisor and child of a job (`SIGSTOP`), at a moment at which they do, or do not, hold it locked."""
        supervisor, child = self.supervisor_of(job_id), self.child(job_id)

        def stopped() -> bool:
            supervisor.pause()
            child.suspend()
            if self.is_locked(job_id) == locked:
                return True
            child.resume()
            supervisor.resume()
            return False

        wait_for(stopped, f"a moment at which job {job_id} is {'' if locked else 'not '}locked")
        return supervisor, child

    def is_locked(self, job_id: str) -> bool:
        """Whether a write to the job would have to wait: SQLite has one lock for all."""
        try:
            if self.database.sqlite:
                with closing(sqlite3.connect(str(make_url(self.settings.database).database), timeout=0)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
            else:
                with self.database.write() as session:
                    session.execute(select(JobRow.id).where(JobRow.id == job_id).with_for_update(nowait=True))
        except (sqlite3.OperationalError, OperationalError):
            return True
        return False

    def logs(self) -> str:
        """What the parts have printed, for the reader of a failed test."""
        return "\n".join(f"--- {part.name}\n{part.log.read_text(errors='replace')[-4000:]}" for part in self.parts)


def _free_port() -> int:
    """A port that nobody listens on. It stays the part's own over restarts, which a socket bound to 0 would not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _redis_command(folder: Path, port: int) -> list[str]:
    """A server that keeps nothing: started again, it is empty."""
    options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(folder)}
    return [redis.find_server(), *(part for name, value in options.items() for part in (f"--{name}", value))]
