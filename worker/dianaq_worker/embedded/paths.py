"""Where the local stack keeps its things."""

from __future__ import annotations

import os
import secrets
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
def socket_path(run_dir: Path) -> Iterator[Path]:
    """Where Redis may listen: in `run_dir`, or in a private temporary folder where that path is too long.

    The name is new each time: a server that is still ending removes its own socket, and not its successor's.
    """
    name = f"redis-{secrets.token_hex(4)}.sock"
    if len(os.fsencode(run_dir / name)) <= SOCKET_PATH_LIMIT:
        yield run_dir / name
        (run_dir / name).unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="dianaq-") as folder:
        yield Path(folder) / name
