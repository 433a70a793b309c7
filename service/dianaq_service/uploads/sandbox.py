"""`python -m dianaq_service.uploads.sandbox SECONDS BYTES KIND PATH ...`: inspection with limits on itself.

The limits are set here rather than between fork and exec, where a process with threads must not run Python.
"""

from __future__ import annotations

import resource
import runpy
import sys


def main() -> None:
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A reader has nothing to write.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.argv = ["dianaq.inspection", *sys.argv[3:]]
    runpy.run_module("dianaq.inspection", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
