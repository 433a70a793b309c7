"""`python -m dianaq_worker.alive`: exit code 0 when every supervisor of this machine works, else 1 and what does not.

For container health checks. Each supervisor keeps touching a file for each sign of life:

- `consumes`: a message that it sent to itself has come back from the broker, or it has renewed the lease of the job
  that it runs (`dianaq_worker.pulse`);
- `sweeps`: it has reached the database and, when there was something to send, the broker.

A broker or database that is away is not the worker's fault, but it does no work without: that is unhealthy as well.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote

from dianaq_service.settings import Settings

Sign = Literal["consumes", "sweeps"]

PLACE = "DIANAQ_PLACE"
"""What a supervisor's place is called, for processes that serve one of several."""
MISSED = 6
"""Rounds without a sign until it counts as absent: a busy machine may miss one or two."""


def expect(settings: Settings, places: Iterable[str]) -> None:
    """Note which supervisors there are to be, and forget those of before: each is unhealthy until its first signs."""
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    for place in places:
        for sign in get_args(Sign):
            mark(settings, place, sign)
            os.utime(_path(settings, place, sign), (0, 0))


def mark(settings: Settings, place: str, sign: Sign) -> None:
    """Note a sign of life."""
    path = _path(settings, place, sign)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def missing(settings: Settings) -> list[str]:
    """The signs that this machine's supervisors have not given lately, in words; empty when all is well."""
    folder = _folder(settings)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if not files:
        return ["no worker has started"]
    late = MISSED * max(settings.sweep_seconds, settings.ping_seconds)
    return [f"{path.name}: not within {late:g} s" for path in files if time.time() - path.stat().st_mtime > late]


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "workers" / "alive" / socket.gethostname()


def _path(settings: Settings, place: str, sign: Sign) -> Path:
    # The name of a part of a GPU may have slashes.
    return _folder(settings) / f"{quote(place, safe=' ')} {sign}"


if __name__ == "__main__":
    absent = missing(Settings.from_env())
    print("; ".join(absent) or "all supervisors consume and sweep")
    sys.exit(1 if absent else 0)
