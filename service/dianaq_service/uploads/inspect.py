"""Looking into an upload from a safe distance: in a child process with limits on its time and memory."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from dianaq.errors import DianaqError, Problem, from_problem
from dianaq.schemas.spec import NetworkPart
from dianaq_service.settings import Settings

_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
"""What a reader of files needs of the environment; the keys and addresses of the service are not among it."""

PARALLEL = 2
"""Inspections at a time: each may use the whole memory limit."""

_log = logging.getLogger(__name__)


class Inspector:
    """Runs `dianaq.inspection` on files."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.inspection_seconds
        self._memory = settings.inspection_memory_bytes
        self._turns = asyncio.Semaphore(PARALLEL)

    async def inspect(
        self, kind: str, path: Path, refusal: type[DianaqError], part: NetworkPart | None = None
    ) -> dict[str, Any]:
        """What inspection says about a file of this kind.

        Args:
            part: what of a network to look at; None for all of it.

        Raises:
            DianaqError: what inspection found wrong; a `refusal` when it did not survive the file.
        """
        async with self._turns:
            code, output = await self._run(kind, path, refusal, part)
        try:
            answer = json.loads(output)
            if code == 0:
                return dict(answer["info"])
            problem = Problem.model_validate(answer["problem"])
        except (ValueError, TypeError, KeyError):
            _log.warning("inspection of a %s ended with %s and no answer", kind, code)
            raise refusal(
                f"the {kind} file could not be read: its inspection broke off; it may be damaged, or need "
                f"more than {self._memory // 1024**2} MiB of memory",
                param=kind,
            ) from None
        raise from_problem(problem)

    async def _run(
        self, kind: str, path: Path, refusal: type[DianaqError], part: NetworkPart | None
    ) -> tuple[int, bytes]:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-B", "-m", "dianaq_service.uploads.sandbox"),
            *(str(math.ceil(self._seconds)), str(self._memory), kind, str(path), *_options(part)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            # Each thread of the linear algebra library would take address space of its own.
            env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), self._seconds)
        except TimeoutError:
            raise refusal(f"the {kind} file could not be read within {self._seconds:g} seconds", param=kind) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if errors:
            _log.info("inspection said: %s", errors.decode(errors="replace")[-2000:])
        return process.returncode or 0, output


def _options(part: NetworkPart | None) -> list[str]:
    """A part as options of the command; as one word each, so that a name is never taken for an option."""
    ends = {} if part is None else {"from": part.from_, "to": part.to}
    return [f"--{end}={name}" for end, name in ends.items() if name is not None]
