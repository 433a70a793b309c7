"""Snapshots from attempt to attempt: taken over, never shared, and gone with the job."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from quant.jobs import write_files

from dianaq_service.database import Database
from dianaq_service.jobs.states import is_in, move
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import leases
from dianaq_worker.supervisor import Supervisor
from dianaq_worker.sweeper import Sweeper

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, add_job_of, add_uploads, history, row_of, wait_for


def run_and_kill(supervisor: Supervisor, job: str, when: Callable[[], object], seconds: float = 20) -> None:
    """Run an attempt, and kill its child as soon as a condition holds."""
    thread = threading.Thread(target=supervisor.run, args=(job,))
    thread.start()
    try:
        wait_for(when, seconds)
    finally:
        for child in psutil.Process().children():
            if job in child.cmdline():
                os.kill(child.pid, signal.SIGKILL)
        thread.join()


def test_a_job_whose_child_is_killed_in_training_goes_on_from_there(
    database: Database, storage: Storage, supervisor: Supervisor, tmp_path: Path
) -> None:
    write_files(tmp_path)
    uploads = add_uploads(
        database, storage, (tmp_path / "model.onnx").read_bytes(), (tmp_path / "data.npz").read_bytes()
    )
    epochs = 60
    job = add_job_of(database, uploads, recipe={"float": {"epochs": epochs, "batch_size": 20}})

    def has_an_epoch() -> bool:
        return any(event.body.type == "metrics" for event in history(database, job))

    run_and_kill(supervisor, job, has_an_epoch, 60)
    assert row_of(database, job).state == "queued"
    supervisor.run(job)
    assert row_of(database, job).state == "succeeded", storage.log(job, 2).read_text()
    second = [event.body for event in history(database, job) if event.attempt == 2]
    messages = [body.message for body in second if body.type == "log"]
    found = [match for message in messages if (match := re.match(r"float goes on after epoch (\d+) of 60", message))]
    assert len(found) == 1
    done = int(found[0][1])
    trained = {body.label for body in second if body.type == "progress"}
    assert trained == {f"epoch {number}/{epochs}" for number in range(done + 1, epochs + 1)}
    assert [b.epoch for b in second if b.type == "metrics" and b.epoch] == list(range(1, epochs + 1))
    assert storage.jobs_with_snapshots() == []


@pytest.mark.usefixtures("fake_pipeline")
def test_each_attempt_has_a_folder_of_its_own_until_the_job_ends(
    database: Database, storage: Storage, supervisor: Supervisor
) -> None:
    job = add_job(database, storage, fake.HANG)

    def in_training(attempt: int) -> bool:
        row = row_of(database, job)
        return (row.attempt, row.stage) == (attempt, "float")

    left = "[]"
    for attempt in (1, 2):
        run_and_kill(supervisor, job, partial(in_training, attempt))
        folders = [path.name for path in storage.snapshots(job, attempt).parent.iterdir()]
        assert folders == [str(attempt)]
        content = (storage.snapshots(job, attempt) / "float.pt").read_text()
        assert content == f"attempt {attempt}, after {left}"
        left = str([content])
    run_and_kill(supervisor, job, partial(in_training, 3))
    assert row_of(database, job).state == "failed"
    assert storage.jobs_with_snapshots() == []


def test_the_newest_of_each_is_taken_over(storage: Storage) -> None:
    for attempt, names in {1: ("float", "fake_quantised", ".float.pt-half"), 2: ("float",), 4: ("float",)}.items():
        folder = storage.snapshots("job", attempt)
        folder.mkdir(parents=True)
        for name in names:
            (folder / (name if name.startswith(".") else f"{name}.pt")).write_text(f"{name} of {attempt}")
    folder = storage.inherit_snapshots("job", 3)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "float.pt": "float of 2",
        "fake_quantised.pt": "fake_quantised of 1",
    }
    assert sorted(path.name for path in folder.parent.iterdir()) == ["3", "4"]  # a later attempt is not robbed
    assert storage.inherit_snapshots("other", 1).is_dir()


def test_snapshots_of_jobs_that_ended_without_an_attempt_are_swept(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue
) -> None:
    ended, running = (add_job(database, storage) for _ in range(2))
    for job in (ended, running):
        assert leases.claim(database, job, "w", 30) == 1
        storage.inherit_snapshots(job, 1)
    leases.hand_back(database, ended, 1)
    storage.inherit_snapshots("unknown", 1)
    sweeper = Sweeper(settings, database, queue, lambda: None)
    sweeper.sweep(30)
    assert sorted(storage.jobs_with_snapshots()) == sorted([ended, running])
    with database.write() as session:
        assert move(session, ended, "cancelled", is_in("queued"))
    sweeper.sweep(30)
    assert storage.jobs_with_snapshots() == [running]
