"""All parts of a stack log as they are told to, and say which request or attempt a line belongs to."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from dianaq_service.database import Database
from dianaq_service.storage import Storage
from dianaq_worker.embedded import LocalStack

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, row_of, wait_for, with_fakes


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_every_line_of_every_part_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", with_fakes())
    monkeypatch.setenv("DIANAQ_DEVICE", "cpu")
    with LocalStack(tmp_path / "data", settings={"sweep_seconds": 0.5, "log_format": "json"}) as stack:
        database, storage = Database(f"sqlite:///{stack.data_dir}/dianaq.sqlite"), Storage(stack.data_dir)
        job = add_job(database, storage, fake.BREAK)
        wait_for(lambda: row_of(database, job).state == "failed", 60)
        worker = stack.data_dir / "logs" / "worker.log"
        api = stack.data_dir / "logs" / "api.log"
        wait_for(lambda: job in worker.read_text(), 60)
        os.kill(stack.pids["redis"], signal.SIGKILL)
        headers = {"X-Request-ID": "mine"}
        wait_for(lambda: httpx.get(f"{stack.url}/readyz", headers=headers, timeout=20).status_code == 503, 60)
        # Celery has its say, too.
        wait_for(lambda: any(line["logger"].startswith("celery") for line in read(worker)), 60)
        database.close()
    child = read(storage.log(job, 1))
    assert child
    assert {(line["job_id"], line["attempt"]) for line in child} == {(job, 1)}
    assert any("ZeroDivisionError" in line.get("exception", "") for line in child)
    (start,) = [line for line in read(worker) if line.get("attempt") == 1 and line["message"].endswith("attempt 1")]
    assert start["job_id"] == job
    assert any(line["request_id"] == "mine" for line in read(api))
