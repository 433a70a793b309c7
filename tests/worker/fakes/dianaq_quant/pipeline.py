"""A pipeline whose behaviour is chosen by the recipe's seed."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dianaq.errors import JobCancelled, QuantisationError
from dianaq.schemas.events import ITERATIONS, EventBody, MetricsBody, ProgressBody, StageBody
from dianaq.schemas.spec import JobSpec, checkpoint_of

SUCCEED, REFUSE, BREAK, WAIT, IGNORE_CANCEL, HANG_ONCE, HANG = range(7)
FILL_MEMORY, BURN, FILL_DISK, OPEN_FILES, CORE = range(7, 12)
PLOD = 12
"""Says something all the time, for three seconds."""
FILL = 100
"""Writes until the disk is full."""
MEMBERS = sorted(["bundle.zip", "htvm/model.onnx", "report.json", *map(checkpoint_of, ITERATIONS)])
RANDOM = b"random weights"


def run(
    spec: JobSpec,
    *,
    model_path: Path | None,
    dataset_path: Path,
    out_dir: Path,
    emit: Callable[[EventBody], None],
    should_stop: Callable[[], bool],
    start_from: Path | None = None,
    snapshots: Path | None = None,
) -> None:
    behaviour, attempt = spec.recipe.seed, int(sys.argv[2])
    emit(StageBody(stage="import", status="started"))
    if behaviour == REFUSE:
        raise QuantisationError("layer conv1 cannot be mapped", param="conv1")
    if behaviour == BREAK:
        raise ZeroDivisionError("nothing to divide")
    if behaviour == WAIT:
        while not should_stop():
            time.sleep(0.02)
        raise JobCancelled("stopped between two steps")
    if behaviour == IGNORE_CANCEL:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == FILL_MEMORY:
        held = [bytearray(2**26) for _ in range(2**10)]
        assert held
    if behaviour == BURN:
        while True:
            pass
    if behaviour == FILL_DISK:
        with (out_dir.parent / "large").open("wb") as file:
            while True:
                file.write(bytes(2**20))
    if behaviour == OPEN_FILES:
        opened = [os.open(__file__, os.O_RDONLY) for _ in range(2**14)]
        assert opened
    if behaviour == CORE:
        raise QuantisationError(f"core files of up to {resource.getrlimit(resource.RLIMIT_CORE)} bytes")
    assert snapshots is not None
    if behaviour == FILL:
        with (snapshots / "float.pt").open("wb") as file:
            while True:
                file.write(bytes(100_000))
    before = [path.read_text() for path in snapshots.iterdir()]
    (snapshots / "float.pt").write_text(f"attempt {attempt}, after {before}")
    if behaviour in (IGNORE_CANCEL, HANG) or (behaviour == HANG_ONCE and attempt == 1):
        emit(StageBody(stage="float", status="started"))
        time.sleep(120)
    for epoch in range(60 if behaviour == PLOD else 0):
        emit(MetricsBody(stage="float", epoch=epoch, values={"loss": 1.0}))
        should_stop()
        time.sleep(0.05)
    for step in range(1, 6):
        emit(ProgressBody(stage="float", label="epoch 1/1", step=step, total=5))
    emit(MetricsBody(stage="float", epoch=1, values={"val_accuracy": 0.5}))
    emit(MetricsBody(stage="float", epoch=1, values={"test_accuracy": 0.75}))
    emit(StageBody(stage="import", status="finished", seconds=0.1))
    (out_dir / "htvm").mkdir(parents=True)
    (out_dir / "htvm" / "model.onnx").write_bytes(RANDOM if model_path is None else model_path.read_bytes())
    (out_dir / "checkpoints").mkdir()
    history = b"" if start_from is None else start_from.read_bytes()
    for iteration in ITERATIONS:
        (out_dir / checkpoint_of(iteration)).write_bytes(history + f"{iteration} ".encode())
    (out_dir / "report.json").write_text(json.dumps({"data": dataset_path.stat().st_size}))
    (out_dir / "bundle.zip").write_bytes(b"PK")
