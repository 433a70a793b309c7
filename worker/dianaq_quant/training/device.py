"""Where networks are trained, and measured meanwhile: on a GPU if there is one. What must be exact is the CPU's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from dianaq.errors import InvalidSpec

DEVICE = "DIANAQ_DEVICE"
"""Environment variable: `cpu`, `cuda` or `cuda:1`; by default the first GPU that the process sees, else the CPU."""

GPU_MEMORY = "DIANAQ_GPU_MEMORY_GB"
"""Environment variable: how much of the GPU's memory this process may allocate, so that several jobs share one; by
default all of it. A training that needs more splits its batches (see `step.Step`)."""


def choose_device() -> torch.device:
    """The device that the environment names, set up so that it computes the same each time, and in full precision.

    Raises:
        InvalidSpec: a variable holds what it cannot, or names a GPU that is not there.
    """
    count = torch.cuda.device_count()
    name = os.environ.get(DEVICE) or ("cuda:0" if count else "cpu")
    known = ["cpu", *(f"cuda:{i}" for i in range(count))]
    name = "cuda:0" if name == "cuda" else name
    if name not in known:
        raise InvalidSpec(f"{DEVICE} is {name!r}; there are {', '.join(known)}", param=DEVICE)
    device = torch.device(name)
    limit = _gigabytes()
    if device.type == "cuda":
        _prepare(device, limit)
    return device


def _gigabytes() -> float | None:
    text = os.environ.get(GPU_MEMORY)
    if not text:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise InvalidSpec(f"{GPU_MEMORY} is {text!r}; it takes a number of GB above 0, such as 8", param=GPU_MEMORY)
    return limit


def _prepare(device: torch.device, limit: float | None) -> None:
    """Full precision, as the 10 bits of TF32 do not hold a fake-quantised value; and the same kernels each time."""
    # Not by the newer `fp32_precision`: torch's own exporters ask for these, and fail in a process that has set those.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    # cuBLAS is deterministic with a workspace of its own (torch's notes on reproducibility).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    if limit is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * 1e9 / total), device)


def describe(device: torch.device) -> str:
    """The device's name for reports: what decides the bits of a training, beside its seed and threads."""
    processor = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return f"cuda {torch.cuda.get_device_name(device)}, {processor}" if device.type == "cuda" else processor


@contextmanager
def placed(device: torch.device, *networks: nn.Module | None) -> Iterator[None]:
    """Networks on a device, and on the CPU again afterwards; their parameters stay the same objects."""
    present = [network for network in networks if network is not None]
    for network in present:
        network.to(device)
    try:
        yield
    finally:
        for network in present:
            network.to("cpu")


def half_precision(device: torch.device) -> AbstractContextManager[object]:
    """For the float teacher, whose outputs are targets and not the chip's: half precision on a GPU."""
    if device.type != "cuda":
        return nullcontext()
    kind = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast("cuda", dtype=kind)
