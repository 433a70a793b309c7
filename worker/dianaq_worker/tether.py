"""`tether.py PARENT LIMITS GROUP COMMAND...`: become COMMAND, within limits, and die with the process PARENT.

Run as a file by `dianaq_worker.processes`, before anything else of the child exists. The kernel sends TERM to
a process that asked for it when its parent ends (prctl(2), PR_SET_PDEATHSIG); the request outlives exec, as the
limits do. LIMITS is `NAME=SOFT:HARD,...` with the names of `resource`; GROUP is the folder of a cgroup to join;
either may be empty.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    parent, limits, group, command = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have ended before the request was made.
        if os.getppid() != parent:
            sys.exit(1)
    if group:
        with open(os.path.join(group, "cgroup.procs"), "w") as file:  # noqa: PTH118, PTH123  (pathlib takes long to load)
            file.write("0")  # the process that writes
    for limit in filter(None, limits.split(",")):
        _limit(*limit.split("="))
    os.execvp(command[0], command)


def _limit(name: str, values: str) -> None:
    kind = getattr(resource, name)
    highest = resource.getrlimit(kind)[1]
    bounds = [int(value) for value in values.split(":")]
    # Nobody may go beyond what the process itself was given.
    if highest != resource.RLIM_INFINITY:
        bounds = [min(value, highest) for value in bounds]
    resource.setrlimit(kind, (bounds[0], bounds[1]))


if __name__ == "__main__":
    main()
