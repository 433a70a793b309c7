"""A worker that receives nothing is found out, and starts anew."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dianaq_service.database import Database
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import alive
from dianaq_worker.embedded import redis
from dianaq_worker.pulse import MISSED_PINGS, Pulse
from dianaq_worker.supervisor import Supervisor

from .deaf import Proxy
from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, all_gone, row_of, wait_for, with_fakes


class Patient:
    """A pulse that is taken by hand."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.broker = True
        self.pings = self.marks = self.restarts = 0
        self.heard = threading.Event()
        self.supervisor = Supervisor(settings, database, JobQueue(settings.broker_url, database))
        self.pulse = Pulse(1.0, self.supervisor, self.heard, ping=self._ping, mark=self._mark, restart=self._restart)

    def beats(self, number: int) -> None:
        for _ in range(number):
            self.pulse.beat()

    def _ping(self) -> bool:
        self.pings += 1
        return self.broker

    def _mark(self) -> None:
        self.marks += 1

    def _restart(self) -> None:
        self.restarts += 1


@pytest.fixture
def patient(settings: Settings, database: Database) -> Patient:
    return Patient(settings, database)


def test_many_pings_in_a_row_must_be_missed(patient: Patient) -> None:
    patient.beats(MISSED_PINGS)
    patient.heard.set()
    patient.beats(MISSED_PINGS)
    assert (patient.marks, patient.restarts) == (1, 0)
    patient.beats(1)
    assert (patient.marks, patient.restarts) == (1, 1)
    # It takes no job on its way out.
    assert not patient.supervisor.retire()


def test_a_broker_that_is_away_is_not_the_workers_fault_and_no_sign_of_life(patient: Patient) -> None:
    patient.broker = False
    patient.beats(3 * MISSED_PINGS)
    assert (patient.marks, patient.restarts) == (0, 0)


def test_a_worker_that_stops_does_not_start_anew(patient: Patient) -> None:
    patient.supervisor.stop()
    patient.beats(3 * MISSED_PINGS)
    assert patient.restarts == 0


def test_a_worker_that_runs_a_job_is_not_pinged(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "_run", lambda *_: patient.beats(3 * MISSED_PINGS))
    patient.supervisor.run("job_x")
    assert (patient.pings, patient.restarts) == (0, 0)
    patient.beats(MISSED_PINGS)
    assert patient.restarts == 0


def test_health_takes_every_sign_of_every_supervisor(settings: Settings) -> None:
    assert alive.missing(settings) == ["no worker has started"]
    alive.expect(settings, ["cpu 0", "gpu MIG-GPU-1/2/0"])
    assert len(alive.missing(settings)) == 4
    for place in ("cpu 0", "gpu MIG-GPU-1/2/0"):
        alive.mark(settings, place, "consumes")
    assert [line.split(":")[0] for line in alive.missing(settings)] == [
        "cpu 0 sweeps",
        "gpu MIG-GPU-1%2F2%2F0 sweeps",
    ]
    for place in ("cpu 0", "gpu MIG-GPU-1/2/0"):
        alive.mark(settings, place, "sweeps")
    assert alive.missing(settings) == []
    alive.expect(settings, ["cpu 0"])
    assert len(alive.missing(settings)) == 2


class Site:
    """A worker on a broker behind a proxy."""

    def __init__(self, settings: Settings, database: Database, storage: Storage, broker: Path) -> None:
        self.proxy = Proxy(broker)
        self.settings = replace(settings, broker_url=self.proxy.url, ping_seconds=1.0, lease_seconds=20.0)
        self.database = database
        self.storage = storage
        self.log = settings.data_dir / "worker.log"
        self._broker = broker
        self.environ = os.environ | self.settings.to_env() | {"DIANAQ_DEVICE": "cpu", "PYTHONPATH": with_fakes()}
        with self.log.open("wb") as log:
            self.redis = subprocess.Popen(redis.command(broker), stdout=log, stderr=log)
            wait_for(lambda: redis.answers(broker))
            self.worker = subprocess.Popen([sys.executable, "-m", "dianaq_worker"], env=self.environ, stderr=log)

    def is_healthy(self) -> bool:
        assert self.worker.poll() is None, self.log.read_text()
        return alive.missing(self.settings) == []

    def add(self, behaviour: int) -> str:
        """A job whose message is sent by a sweep."""
        return add_job(self.database, self.storage, behaviour)

    def has(self, job: str, state: str) -> bool:
        return row_of(self.database, job).state == state

    def started(self) -> int:
        return self.log.read_text().count("ready for jobs")

    def close(self) -> None:
        self.worker.terminate()
        self.worker.wait(60)
        self.redis.terminate()
        self.redis.wait(60)
        self.proxy.close()


@pytest.fixture
def site(settings: Settings, database: Database, storage: Storage, tmp_path: Path) -> Iterator[Site]:
    site = Site(settings, database, storage, tmp_path / "redis.sock")
    try:
        wait_for(site.is_healthy, 60)
        yield site
    finally:
        site.close()


def test_a_deaf_worker_is_unhealthy_and_heals_itself(site: Site) -> None:
    wait_for(lambda: site.proxy.consumers)
    site.proxy.deafen()
    job = site.add(fake.SUCCEED)
    wait_for(lambda: not site.is_healthy(), 60)
    check = subprocess.run(
        [sys.executable, "-m", "dianaq_worker.alive"], env=site.environ, capture_output=True, text=True, check=False
    )
    assert check.returncode == 1
    assert "cpu 0 consumes" in check.stdout
    # It still sweeps: without the pings it would look well.
    assert "sweeps" not in check.stdout
    wait_for(lambda: site.has(job, "succeeded"), 120)
    wait_for(site.is_healthy, 60)
    assert site.started() == 2
    assert row_of(site.database, job).losses == 0


def test_a_worker_that_goes_deaf_in_a_job_runs_it_to_its_end(site: Site) -> None:
    first = site.add(fake.WAIT)
    wait_for(lambda: site.has(first, "running"), 60)
    wait_for(lambda: site.proxy.consumers)
    site.proxy.deafen()
    # By then a worker without a job would have missed too many.
    time.sleep(1.5 * MISSED_PINGS * site.settings.ping_seconds)
    assert site.is_healthy()
    assert (site.has(first, "running"), site.started()) == (True, 1)


def test_a_process_that_starts_anew_still_ends_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = (
        "import os, sys, threading, time\n"
        "from dianaq_worker import processes\n"
        "restart = processes.restarter()\n"
        f"path = {str(note)!r}\n"
        "if not os.path.exists(path):\n"
        "    open(path, 'w').close()\n"
        "    threading.Thread(target=restart).start()\n"
        "    time.sleep(60)\n"
        "with open(path + '.new', 'w') as file:\n"
        "    file.write(str(os.getpid()))\n"
        "os.rename(path + '.new', path)\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import os, sys, time\n"
        "from dianaq_worker import processes\n"
        f"process = processes.spawn([sys.executable, '-c', {child!r}], env=os.environ, log=sys.stderr.buffer)\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = process.stdout.readline().strip()
    wait_for(lambda: note.exists() and note.read_text() == pid)
    descendant = psutil.Process(int(pid))
    process.kill()
    process.wait(20)
    process.stdout.close()
    wait_for(lambda: all_gone([descendant]))
