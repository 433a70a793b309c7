"""Which kinds of workers there are, so that a job that waits for one that is not there can say so.

Every worker marks its kind with each sweep, in the data folder that the API sees as well.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

from dianaq_service.database import JobRow
from dianaq_service.queue import Kind, taken_by
from dianaq_service.settings import Settings

MISSED_SWEEPS = 6
"""A worker that has not swept for so long is gone, or hangs."""


def mark(settings: Settings, kind: Kind) -> None:
    """Note that a worker of this kind is there."""
    path = _path(settings, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def note(settings: Settings, row: JobRow) -> str | None:
    """What a queued job waits for, if no worker of a kind that would take it is there."""
    if row.state != "queued" or any(
        row.device in taken_by(kind) for kind in get_args(Kind) if _is_there(settings, kind)
    ):
        return None
    worker = "worker" if row.device == "any" else f"{row.device} worker"
    return f"waits for a {worker}, and none is running"


def _is_there(settings: Settings, kind: Kind) -> bool:
    path = _path(settings, kind)
    return path.exists() and time.time() - path.stat().st_mtime < MISSED_SWEEPS * settings.sweep_seconds


def _path(settings: Settings, kind: Kind) -> Path:
    return settings.data_dir / "workers" / "kinds" / kind
