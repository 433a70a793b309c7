"""Where the local stack keeps its things."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_PATH_LIMIT = 100
"""A unix socket's path has room for 108 bytes on Linux and 104 on macOS (sys/un.h)."""


def default_data_dir() -> Path:
    """`$DIANAQ_HOME`, else `dianaq` in the XDG data home."""
    if home := os.environ.get("DIANAQ_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "dianaq"


@contextmanager
def socket_folder(run_dir: Path) -> Iterator[Path]:
    """A private folder for sockets: `run_dir`, or a temporary one where that path is too long."""
    if len(os.fsencode(run_dir / "redis.sock")) < SOCKET_PATH_LIMIT:
        yield run_dir
        return
    with tempfile.TemporaryDirectory(prefix="dianaq-") as folder:
        yield Path(folder)
