"""Several supervisors on one machine: a process for each place, started again when it dies.

They are processes of their own so that each sees one GPU, and so that a fault takes one of them alone. A signal to
stop goes to all of them; the crew ends when the last has handed its job back.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from time import monotonic
from types import FrameType

from dianaq_worker import processes
from dianaq_worker.alive import PLACE
from dianaq_worker.places import Place

TICK_SECONDS = 0.1
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
"""A supervisor that dies at once, for want of its GPU or the database, is not started a thousand times an hour."""
STEADY_SECONDS = 60.0
"""One that lived for so long had another reason to die than the one before it."""

_log = logging.getLogger(__name__)


class Crew:
    """The supervisors of this machine.

    Args:
        command: starts a supervisor; the kind of its place is added.
    """

    def __init__(
        self, places: Sequence[Place], command: Sequence[str] = (sys.executable, "-m", "dianaq_worker")
    ) -> None:
        self._members = [_Member(place, command) for place in places]
        self._stopping = threading.Event()

    def run(self) -> int:
        """Keep the supervisors running until TERM or INT; gives the exit code, 0 if all ended well then.

        Must be called by the main thread: signals arrive there, and a supervisor ends with the thread that started it.
        """

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        while not self._stopping.is_set():
            for member in self._members:
                member.keep()
            self._stopping.wait(TICK_SECONDS)
        _log.info("stopping")
        for member in self._members:
            member.ask_to_stop()
        return max(member.wait() for member in self._members)


class _Member:
    """One supervisor."""

    def __init__(self, place: Place, command: Sequence[str]) -> None:
        self._place = place
        self._command = [*command, place.kind]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due = 0.0
        self._pause = FIRST_PAUSE_SECONDS

    def keep(self) -> None:
        """Start the process if it is not there, or has died and paused for long enough."""
        moment = monotonic()
        if self._process is None:
            if moment >= self._due:
                env = os.environ | dict(self._place.env) | {PLACE: self._place.name}
                self._process = processes.spawn(self._command, env=env, log=sys.stderr.buffer)
                self._started = moment
            return
        code = self._process.poll()
        if code is not None:
            self._process = None
            if moment - self._started > STEADY_SECONDS:
                self._pause = FIRST_PAUSE_SECONDS
            how = processes.describe_exit(code)
            _log.warning("the supervisor of %s %s; started again in %g s", self._place.name, how, self._pause)
            self._due = moment + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def ask_to_stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> int:
        """Wait for its end, which the supervisor itself bounds; gives its exit code, 1 for a signal."""
        if self._process is None:
            return 0
        code = self._process.wait()
        return code if code >= 0 else 1
