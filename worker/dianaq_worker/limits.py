"""What one job's process may use, and what it means when it wanted more.

The kernel ends the process (processor time, file size), or refuses it something (memory, files), which the process
reports itself. Soft limits are those of the settings; the hard ones above leave room for that report. Whatever a job
ran into once it would run into again, so it fails, and the error names the setting.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress

from dianaq.errors import LimitExceeded
from dianaq_service.queue import Kind
from dianaq_service.settings import PREFIX, Settings

LEAST_MEMORY = 16 * 1024**3
"""Of a limit that nobody set: libraries and threads alone reserve several GiB of address space without using it."""

SPARE: Mapping[str, int] = {
    "RLIMIT_AS": 256 * 1024**2,
    "RLIMIT_NOFILE": 64,
    # Python that handles the signal for processor time may take so many seconds to end.
    "RLIMIT_CPU": 30,
}
"""Between soft and hard limit: what reporting a failure takes."""

_REFUSED = ("can't allocate memory", "Cannot allocate memory", "bad_alloc", "bad allocation")
"""How torch and onnxruntime say that they got no memory; their exceptions have no type of their own for it."""


def limits(settings: Settings, kind: Kind) -> dict[str, tuple[int, int]]:
    """The soft and hard limits of a job's process, by the name that `resource` has for them."""
    found = {
        "RLIMIT_CPU": settings.child_cpu_seconds,
        "RLIMIT_FSIZE": settings.child_file_bytes,
        "RLIMIT_NOFILE": settings.child_open_files,
        # A core of a process with gigabytes would fill the disk.
        "RLIMIT_CORE": 0,
    }
    if kind == "cpu":
        found["RLIMIT_AS"] = memory(settings)
    return {name: (soft, soft + SPARE.get(name, 0)) for name, soft in found.items()}


def memory(settings: Settings) -> int:
    """Bytes that a job's process may have."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return settings.child_memory_bytes or max(machine, LEAST_MEMORY)


def of_exit(code: int, settings: Settings) -> LimitExceeded | None:
    """The limit that ended a process with this exit code, if one did."""
    if code == -signal.SIGXCPU:
        return _exceeded("child_cpu_seconds", f"took more than {settings.child_cpu_seconds:,} s of processor time")
    if code == -signal.SIGXFSZ:
        return _exceeded("child_file_bytes", f"wrote a file of more than {settings.child_file_bytes:,} bytes")
    return None


def of_memory(settings: Settings) -> LimitExceeded:
    """The limit of a process that got no more memory."""
    return _exceeded("child_memory_bytes", f"needed more than {memory(settings):,} bytes of memory")


def of_exception(error: BaseException, settings: Settings) -> LimitExceeded | None:
    """The limit behind an exception in a job's process, if there is one."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno == errno.EMFILE:
            return _exceeded("child_open_files", f"opened more than {settings.child_open_files:,} files at once")
        refused = isinstance(cause, RuntimeError | OSError) and any(text in str(cause) for text in _REFUSED)
        if isinstance(cause, MemoryError) or refused:
            return of_memory(settings)
    return None


def make_room() -> None:
    """In a job's process that is about to report a failure: up to the hard limits."""
    for name in ("RLIMIT_AS", "RLIMIT_NOFILE"):
        with suppress(ValueError, OSError):
            hard = resource.getrlimit(getattr(resource, name))[1]
            resource.setrlimit(getattr(resource, name), (hard, hard))


def _exceeded(field: str, what: str) -> LimitExceeded:
    variable = PREFIX + field.upper()
    return LimitExceeded(
        f"the job's process {what}; give it a smaller network, dataset or batch_size, or have the operator of the "
        f"worker raise {variable}",
        param=variable,
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
