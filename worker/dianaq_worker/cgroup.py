"""Memory of a job's process, as the kernel accounts for it (cgroups, version 2).

Where the operator delegates a cgroup (`DIANAQ_CGROUP`), every attempt has a group of its own in it, whose limit also
holds for what is not address space, such as the pages behind CUDA's. The kernel counts the processes that it kills for
memory in each group, which tells such a death from any other. Without delegation, the count of the worker's own group
still says that memory ran out around the process: see https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")

_log = logging.getLogger(__name__)


class MemoryGroup:
    """Where a process runs: in a group of its own, or in that of the worker.

    Attributes:
        own: the folder of the group that the process is to join; None for the worker's.
    """

    def __init__(self, delegated: str, name: str, memory_bytes: int) -> None:
        self.own: Path | None = None
        if delegated:
            self.own = _make(Path(delegated) / name, memory_bytes)
        self._watched = self.own or _own_group()
        self._before = _kills(self._watched)

    def has_killed(self) -> bool:
        """Whether the kernel ended a process of the group for its memory since this object was made."""
        return _kills(self._watched) > self._before

    def close(self) -> None:
        """Remove the group; its processes are gone."""
        if self.own is not None:
            # One that is busy still is removed at the next start of the machine at the latest, and limits nobody else.
            with suppress(OSError):
                self.own.rmdir()


def _make(folder: Path, memory_bytes: int) -> Path | None:
    try:
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(str(memory_bytes))
        # All of the attempt ends together.
        (folder / "memory.oom.group").write_text("1")
    except OSError as error:
        _log.warning("no memory limit is set, the cgroup %s cannot be used: %s", folder, error)
        return None
    return folder


def _own_group() -> Path | None:
    """The group of this process; None without cgroups of version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            return ROOT / line.removeprefix("0::").lstrip("/")
    return None


def _kills(group: Path | None) -> int:
    try:
        lines = [] if group is None else (group / "memory.events").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
