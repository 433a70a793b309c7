"""Wall clocks that jump: a library that is loaded into the processes of a stack, and the shift that it adds.

The machine's own clock belongs to everybody; `clock.c` shifts what single processes see of it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

FILE = "DIANAQ_FAULTS_CLOCK"
"""Names the file of a process's shift; read by `clock.c`."""

SOURCE = Path(__file__).with_name("clock.c")


def compile_shim(folder: Path) -> dict[str, str]:
    """The environment that loads the library; skips where it cannot be compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no wall clock can jump here: there is no C compiler `cc`")
    library = folder / "clock.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
    return {"LD_PRELOAD": str(library)}


def shift(file: Path, seconds: int) -> None:
    """Set a shift. In place, because processes have the file mapped."""
    with file.open("r+b" if file.exists() else "wb") as out:
        out.write(struct.pack("=q", seconds))
