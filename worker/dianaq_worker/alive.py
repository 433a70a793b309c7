"""`python -m dianaq_worker.alive`: exit code 0 when this machine's worker has swept lately.

For container health checks. A sweep reaches both the database and, when there is something to send, the
broker; the worker touches a file after each.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from dianaq_service.settings import Settings

MISSED_SWEEPS = 6


def mark(settings: Settings) -> None:
    """Note that the worker is alive."""
    path = _path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def is_alive(settings: Settings) -> bool:
    """Whether the note is recent."""
    path = _path(settings)
    return path.exists() and time.time() - path.stat().st_mtime < MISSED_SWEEPS * settings.sweep_seconds


def _path(settings: Settings) -> Path:
    return settings.data_dir / "workers" / socket.gethostname()


if __name__ == "__main__":
    sys.exit(0 if is_alive(Settings.from_env()) else 1)
