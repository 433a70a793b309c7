"""Child processes that are never left behind: each leads a group of its own and ends with its parent.

On Linux the kernel sees to the second part. Its signal comes when the *thread* that spawned the child ends,
so a child must be spawned by a thread that outlives it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_TETHER = str(Path(__file__).with_name("tether.py"))
PR_GET_PDEATHSIG = 2  # <linux/prctl.h>

_log = logging.getLogger(__name__)


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: IO[bytes],
    pass_fds: Sequence[int] = (),
    limits: Mapping[str, tuple[int, int]] | None = None,
    group: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; what it prints goes to `log`.

    Args:
        limits: soft and hard ones, by the name that `resource` has for them.
        group: folder of the cgroup that it runs in.
    """
    within = ",".join(f"{name}={soft}:{hard}" for name, (soft, hard) in (limits or {}).items())
    return subprocess.Popen(
        # -I -S: the tether needs nothing installed, and starts in a hundredth of a second.
        [sys.executable, "-I", "-S", _TETHER, str(os.getpid()), within, str(group or ""), *command],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a process and its group: TERM, `grace` seconds, KILL. Returns when the process is gone."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    # Also after a clean exit: what it started must not survive it.
    _signal_group(process, signal.SIGKILL)
    process.wait()


def stands_still(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process was stopped (SIGSTOP, a debugger) and not continued yet; only Linux tells."""
    if process.poll() is not None:
        return False
    try:
        # Behind the name, which may hold anything: proc_pid_stat(5).
        state = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state in (b"T", b"t")


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group is gone when its last process is; its number is not given out again before that.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def restarter() -> Callable[[], None]:
    """Something to call, from any thread, that starts this process anew: same number, parent, command and environment.

    To its parent, be it a crew, a container or `dianaq up`, nothing has ended. Must be made by the main thread.
    """
    # Whether it ends with its parent is a property of the thread, and the one that calls exec takes the process over.
    command = [sys.executable, *sys.orig_argv[1:]]
    if _is_tethered():
        command = [sys.executable, "-I", "-S", _TETHER, str(os.getppid()), "", "", *command]

    def restart() -> None:
        try:
            os.execv(command[0], command)
        except OSError:
            _log.exception("%s cannot be started again, so the process ends", command)
            os._exit(1)

    return restart


def _is_tethered() -> bool:
    if sys.platform != "linux":
        return False
    number = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value != 0


def describe_exit(code: int, *, out_of_memory: bool = False) -> str:
    """How a process ended, in words; `out_of_memory` if the kernel is known to have ended one for its memory."""
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    hint = ""
    if code == -signal.SIGKILL:
        hint = " because memory ran out" if out_of_memory else " (perhaps the machine ran out of memory)"
    return f"was killed by {name}{hint}"
