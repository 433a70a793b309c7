"""Where this machine can train: a place or more per GPU, and on the CPU. Each place is served by one supervisor.

GPUs are found without torch, which supervisors never load: `nvidia-smi` comes with the driver. They are named by UUID,
because CUDA numbers them by speed and `nvidia-smi` by bus.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from dianaq.errors import InvalidSpec
from dianaq_service.queue import Kind
from dianaq_service.settings import Settings

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICE = "DIANAQ_DEVICE"
"""What the child trains on; see `dianaq_quant.training.device`, which is not imported here."""

MEMORY = "DIANAQ_GPU_MEMORY_GB"
"""What a child may allocate of its GPU's memory; see there as well."""

LIST_SECONDS = 60.0
"""`nvidia-smi` wakes every GPU, which takes seconds for each where none is in use."""

_GPU = re.compile(r"^(GPU \d+|\s+MIG .*?):? .*\(UUID: (?P<uuid>[\w./-]+)\)")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A device to train on.

    Attributes:
        env: what makes a process see this device and no other.
    """

    name: str
    kind: Kind
    env: Mapping[str, str] = field(default_factory=dict)


def find_places(settings: Settings, environ: Mapping[str, str]) -> list[Place]:
    """The places that the settings and the environment let this machine serve.

    Raises:
        InvalidSpec: the settings name no place, or several jobs of a GPU without the memory that each may have.
    """
    cpu = {VISIBLE: "", DEVICE: "cpu"}
    gpus = _gpus(settings, environ)
    sharers = _sharers(settings, environ) if gpus else []
    places = [
        Place(f"gpu {gpu}{sharer}", "gpu", {VISIBLE: gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", DEVICE: "cuda:0"})
        for gpu in gpus
        for sharer in sharers
    ]
    beside = settings.cpu_workers if gpus else max(1, settings.cpu_workers)
    return places + [Place(f"cpu {number}", "cpu", cpu) for number in range(beside)]


def _sharers(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """What tells the places of one GPU apart."""
    jobs = settings.gpu_jobs
    if jobs < 1:
        raise InvalidSpec(f"DIANAQ_GPU_JOBS takes a number from 1 on, got {jobs}", param="DIANAQ_GPU_JOBS")
    if jobs == 1:
        return [""]
    if not environ.get(MEMORY):
        raise InvalidSpec(
            f"DIANAQ_GPU_JOBS is {jobs}: {MEMORY} must say how much of the GPU's memory each of them may have, as the "
            "first one would else take what the others need",
            param=MEMORY,
        )
    return [f" job {number}" for number in range(jobs)]


def _gpus(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    wanted = settings.gpus.strip()
    device = environ.get(DEVICE, "")
    if wanted == "none" or device == "cpu":
        return []
    if wanted != "auto":
        gpus = [gpu.strip() for gpu in wanted.split(",")]
        if not all(gpu.isdecimal() or gpu.startswith(("GPU-", "MIG-")) for gpu in gpus) or len({*gpus}) < len(gpus):
            raise InvalidSpec(
                f"DIANAQ_GPUS takes auto, none, or numbers or UUIDs of GPUs, each once, with commas between; "
                f"got {wanted!r}",
                param="DIANAQ_GPUS",
            )
        return gpus
    # What limits every CUDA program limits this one.
    if VISIBLE in environ:
        gpus = [gpu.strip() for gpu in environ[VISIBLE].split(",") if gpu.strip() not in ("", "-1", "NoDevFiles")]
    else:
        gpus = _listed()
    if device.startswith("cuda:"):
        number = device.removeprefix("cuda:")
        if not number.isdecimal() or int(number) >= len(gpus):
            raise InvalidSpec(f"{DEVICE} is {device!r}, but there are {len(gpus)} GPUs", param=DEVICE)
        return [gpus[int(number)]]
    return gpus


def _listed() -> list[str]:
    """UUIDs of the GPUs, as `nvidia-smi -L` lists them; of the parts, where one is split up (MIG)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        result = subprocess.run(
            [program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIST_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("nvidia-smi does not list the GPUs, so the CPU is used: %s", error)
        return []
    found: list[str] = []
    whole = False
    for line in result.stdout.splitlines():
        match = _GPU.match(line)
        if match is None:
            continue
        is_part = match["uuid"].startswith("MIG-")
        if is_part and whole:
            found.pop()
        whole = not is_part
        found.append(match["uuid"])
    return found
