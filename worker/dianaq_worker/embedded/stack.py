"""Redis, the API and one worker, started together and stopped together."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from dianaq_service.keys.service import make_key
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import processes
from dianaq_worker.embedded import redis
from dianaq_worker.embedded.lock import StackError, exclusive
from dianaq_worker.embedded.paths import default_data_dir, socket_path

__all__ = ["LocalStack", "StackError"]

START_SECONDS = 30.0
POLL_SECONDS = 0.02
BACKLOG = 128
GRACE_SECONDS = 12.0
"""Between TERM and KILL: the worker itself waits for its child, and for a while beyond that."""


class Interrupted(Exception):
    """The start was called off."""


class LocalStack:
    """The whole service as a context manager.

    Every process ends when the block does, and when this process or the thread that entered the block ends.

    Args:
        data_dir: where uploads, jobs and artifacts are kept; default as for `dianaq up`.
        port: of the API on 127.0.0.1; 0 takes a free one.
        settings: further fields of `Settings`, for example `lease_seconds`.
        interrupted: when set during the start, the start is called off with `Interrupted`.

    Raises:
        StackError: the folder is in use, the port is taken, or a part did not come up.

    Example:
        with LocalStack(Path("data")) as stack:
            client = Client(stack.url, stack.key)
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int = 0,
        *,
        settings: Mapping[str, object] | None = None,
        interrupted: Event | None = None,
    ) -> None:
        self.data_dir = (data_dir or default_data_dir()).absolute()
        self.url = ""
        self.key = ""
        self._port = port
        self._extra = dict(settings or {})
        self._interrupted = interrupted or Event()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by part: `redis`, `api`, `worker`."""
        return {name: process.pid for name, process in self._processes.items()}

    def check(self) -> None:
        """Look after the parts.

        Raises:
            StackError: one of them has ended.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                how = processes.describe_exit(process.returncode)
                raise StackError(f"the {name} process {how}; {_tail(self._log(name))}")

    def _start(self) -> None:
        Storage(self.data_dir).create()
        run_dir = self.data_dir / "run"
        run_dir.mkdir(mode=0o700, exist_ok=True)
        self._stack.enter_context(exclusive(run_dir / "lock"))
        broker = self._stack.enter_context(socket_path(run_dir))
        listener = _listen(self._port)
        with listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self.key = _key(self.data_dir / "key")
            settings = Settings(
                data_dir=self.data_dir,
                broker_url=redis.url(broker),
                **self._extra,  # type: ignore[arg-type]
            )
            python = (sys.executable, "-m")
            self._spawn("redis", redis.command(broker), settings)
            fd = listener.fileno()
            api = replace(settings, api_key=self.key)
            self._spawn("api", [*python, "dianaq_service", "--fd", str(fd)], api, pass_fds=(fd,))
            self._wait("redis", lambda: redis.answers(broker))
        # The API has created the tables once it is healthy; the worker starts meanwhile.
        self._spawn("worker", [*python, "dianaq_worker"], settings)
        self._wait("api", lambda: _healthy(self.url))

    def _spawn(self, name: str, command: list[str], settings: Settings, pass_fds: tuple[int, ...] = ()) -> None:
        with self._log(name).open("wb") as log:
            process = processes.spawn(command, env=os.environ | settings.to_env(), log=log, pass_fds=pass_fds)
        self._processes[name] = process
        # Last in, first out: the worker hands its job back while the others still answer.
        self._stack.callback(processes.stop, process, GRACE_SECONDS)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                tail = _tail(self._log(name))
                raise StackError(f"the {name} process did not answer within {START_SECONDS:g} s; {tail}")
            if self._interrupted.wait(POLL_SECONDS):
                raise Interrupted

    def _log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    except OSError as error:
        raise StackError(f"port {port} of 127.0.0.1 cannot be used: {error.strerror}") from None


def _key(path: Path) -> str:
    """The key of this data folder, made the first time."""
    if path.exists():
        return path.read_text().strip()
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(make_key())
    fresh.rename(path)
    return path.read_text()


def _healthy(url: str) -> bool:
    # Early requests wait in the listening socket's queue, so one that times out says nothing yet.
    try:
        with urllib.request.urlopen(f"{url}/v1/health", timeout=0.5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _tail(log: Path, lines: int = 10) -> str:
    text = log.read_text(errors="replace").strip() if log.exists() else ""
    last = "\n".join(text.splitlines()[-lines:])
    return f"its log {log} ends with:\n{last}" if last else f"its log {log} is empty"
