"""One stack per data folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dianaq.errors import DianaqError


class StackError(DianaqError):
    """The local stack cannot start, or did not stay up."""

    slug, title, status = "local-stack-failed", "The local service cannot run", 503


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file, with this process's id in it. The kernel lets go of it however the process ends.

    Raises:
        StackError: another process holds it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StackError(
                f"the data folder {path.parent.parent} is in use by a service that runs already "
                f"(process {file.read().strip() or 'unknown'}); stop that one, or name another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)
