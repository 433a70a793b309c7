"""Waiting for a job in a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from dianaq.client import JobHandle

INTERRUPTED = 130
"""Exit status of a process that Ctrl-C ended, as shells have it (128 + SIGINT)."""


def wait(job: JobHandle, out: Path | None = None) -> bool:
    """Follow a job to its end. Ctrl-C stops following, not the job, and says how to go on.

    Returns:
        Whether it ended; False after Ctrl-C.

    Raises:
        JobFailed, JobCancelled: it ended otherwise than well.
    """
    try:
        job.wait()
    except KeyboardInterrupt:
        target = out if out is not None else "OUT"
        print(
            f"\njob {job.id} goes on\n"
            f"  follow it:  dianaq jobs show {job.id} --follow\n"
            f"  fetch it:   dianaq jobs download {job.id} -o {target}\n"
            f"  cancel it:  dianaq jobs cancel {job.id}",
            file=sys.stderr,
        )
        return False
    return True
