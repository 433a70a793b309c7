"""`tether.py PARENT COMMAND...`: become COMMAND, and die with the process PARENT.

Run as a file by `dianaq_worker.processes`, before anything else of the child exists. The kernel sends TERM to
a process that asked for it when its parent ends (prctl(2), PR_SET_PDEATHSIG); the request outlives exec.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have ended before the request was made.
        if os.getppid() != parent:
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
