"""Compiles `kernels.c` for this machine when the process first needs it: half a second, and nothing is left behind.

Without a compiler everything works by tensor operations, which give the same bits and take longer. Nothing is cached:
a library that another processor, compiler or version of the source made can then not be met.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")

COMPILE = ["-std=c11", "-O3", "-march=native", "-fPIC", "-fopenmp", "-c"]
EXACT = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
"""A fused multiply-add would round once where the tensor operations round twice. `floor` is one instruction only where
it may leave error flags alone, which nobody reads here."""

DISABLED = "DIANAQ_NO_KERNELS"
"""Environment variable: anything but an empty string leaves the kernels out."""

_P, _N, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS = {
    "quantise": [_P, _P, _P, _P, _N, _F, _F, _F, _F, _F],
    "pass_inside": [_P, _P, _P, _N, _F],
    "convert": [_P, _P, _P, _N, _N, _P, _P, _F, _F, _F, _F, _F, _P, _N, _N, _F, _P, _P],
    "convert_backward": [_P, _P, _P, _N, _N, _P, _F, _P, _P, ctypes.c_int],
}
_RETURNS = {"convert": ctypes.c_int, "convert_backward": ctypes.c_int}

_log = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with a line in the log that says why, where they cannot be had."""
    if os.environ.get(DISABLED):
        return None
    try:
        return _compiled()
    except (OSError, subprocess.SubprocessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        _log.warning("quantisers run as tensor operations, which takes longer: no compiled kernels (%s)", why)
        return None


def _compiled() -> ctypes.CDLL:
    """Compile and load.

    The shared library names no OpenMP runtime: it takes the one that torch has loaded, so that both have the same
    threads. Where torch has another kind, loading fails here, because all names are resolved at once.

    Raises:
        OSError: there is no compiler, or its result cannot be loaded.
        CalledProcessError: the compiler refuses.
    """
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"there is no C compiler called {command[0]}; install one, or name it in CC")
    with tempfile.TemporaryDirectory(prefix="dianaq-kernels-") as folder:
        made, shared = f"{folder}/kernels.o", f"{folder}/kernels.so"
        for arguments in ([*COMPILE, *EXACT, str(SOURCE), "-o", made], ["-shared", made, "-o", shared]):
            subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
        loaded = ctypes.CDLL(shared, mode=os.RTLD_NOW)
    for name, types in _ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = types, _RETURNS.get(name)
    return loaded
