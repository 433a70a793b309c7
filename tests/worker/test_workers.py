"""Several workers on one stack: kinds, doubled messages, and workers that stop while a job runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from dianaq_service.database import Database, JobRow
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker.embedded import LocalStack

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, all_gone, history, row_of, states, wait_for, with_fakes

FAST = {
    "sweep_seconds": 0.5,
    "stop_grace_seconds": 2.0,
    "cancel_grace_seconds": 1.0,
    "lease_seconds": 20.0,
    "resend_seconds": 1.0,
}


class Site:
    """A stack, whose worker may get company."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.worker = psutil.Process(stack.pids["worker"])
        self.environ = self.worker.environ()
        self.settings = Settings.from_env(self.environ)
        self.database = Database(self.settings.database)
        self.storage = Storage(self.settings.data_dir)
        self.queue = JobQueue(self.settings.broker_url, self.database)
        self.started: list[subprocess.Popen[bytes]] = []

    def add(self, behaviour: int, device: str = "any", *, send: bool = True) -> str:
        job = add_job(self.database, self.storage, behaviour, device=device)
        if send:
            assert self.queue.send(job)
        return job

    def start_worker(self, kind: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "dianaq_worker", kind], env=self.environ)
        self.started.append(process)
        return process

    def has(self, job: str, state: str) -> Callable[[], bool]:
        return lambda: row_of(self.database, job).state == state

    def row(self, job: str) -> JobRow:
        return row_of(self.database, job)

    def note(self, job: str) -> str | None:
        headers = {"Authorization": f"Bearer {self.stack.key}"}
        note: str | None = httpx.get(f"{self.stack.url}/v1/jobs/{job}", headers=headers, timeout=20).json()["note"]
        return note

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
            process.wait(30)
        self.queue.close()
        self.database.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PYTHONPATH", with_fakes())
    monkeypatch.setenv("DIANAQ_DEVICE", "cpu")
    with LocalStack(tmp_path / "data", settings=FAST) as stack:
        site = Site(stack)
        # Ready: it has swept.
        wait_for(lambda: (site.settings.data_dir / "workers" / "kinds" / "cpu").exists(), 60)
        yield site
        site.close()


def test_fifty_copies_of_a_message_run_a_job_once(site: Site) -> None:
    jobs = [site.add(fake.SUCCEED, send=False) for _ in range(2)]
    for _ in range(50):
        assert site.queue.send(jobs[0])
    for job in jobs:
        wait_for(site.has(job, "succeeded"), 60)
    wait_for(lambda: sum(site.queue.waiting().values()) == 0, 60)
    for job in jobs:
        assert states(history(site.database, job)) == ["queued", "running", "succeeded"]
        assert site.row(job).attempt == 1


def test_a_job_for_a_gpu_waits_for_one_whatever_became_of_its_message(site: Site) -> None:
    waiting = [site.add(fake.SUCCEED, "gpu", send=False), site.add(fake.SUCCEED, "gpu")]
    done = site.add(fake.SUCCEED)
    wait_for(site.has(done, "succeeded"), 60)
    assert [site.row(job).state for job in waiting] == ["queued", "queued"]
    assert "gpu worker" in (site.note(waiting[0]) or "")
    for_cpu = site.add(fake.SUCCEED, "cpu", send=False)
    wait_for(site.has(for_cpu, "succeeded"), 60)
    site.start_worker("gpu")
    for job in waiting:
        wait_for(site.has(job, "succeeded"), 60)
    assert site.note(waiting[0]) is None


def test_another_worker_takes_over_what_one_hands_back(site: Site) -> None:
    job = site.add(fake.HANG_ONCE)
    wait_for(lambda: site.row(job).stage == "float", 60)
    site.start_worker("gpu")
    wait_for(lambda: (site.settings.data_dir / "workers" / "kinds" / "gpu").exists(), 60)
    first = site.row(job).lease_owner
    site.worker.terminate()
    wait_for(site.has(job, "succeeded"), 60)
    row = site.row(job)
    assert (row.attempt, row.losses) == (2, 0)
    assert first is not None
    assert first.endswith(f":{site.worker.pid}")
    wait_for(lambda: all_gone([site.worker]), 60)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_twice_to_stop_still_hands_its_job_back(site: Site, second: signal.Signals) -> None:
    # Its child ignores TERM, so that stopping takes a while.
    job = site.add(fake.IGNORE_CANCEL)
    wait_for(lambda: site.row(job).stage == "float", 60)
    (child,) = site.worker.children()
    for number in (second, second):
        os.kill(site.worker.pid, number)
        with pytest.raises(psutil.TimeoutExpired):
            child.wait(0.5)
    wait_for(lambda: all_gone([site.worker, child]), 60)
    row = site.row(job)
    assert (row.state, row.attempt, row.losses) == ("queued", 1, 0)
