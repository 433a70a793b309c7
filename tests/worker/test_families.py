"""Jobs that wait for another one, and the workers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from quant.jobs import write_files
from sqlalchemy import update

from dianaq import Client, JobSpec
from dianaq_service.database import Database, JobRow
from dianaq_service.jobs.families import settle
from dianaq_service.jobs.states import move
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import leases
from dianaq_worker.embedded import LocalStack
from dianaq_worker.supervisor import Supervisor
from dianaq_worker.sweeper import Sweeper

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, history, row_of


@pytest.fixture
def sent() -> list[str]:
    return []


@pytest.fixture
def queue(
    settings: Settings, database: Database, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[JobQueue]:
    """A queue whose messages end in a list."""
    queue = JobQueue(settings.broker_url, database)

    def send(*job_ids: str) -> bool:
        sent.extend(job_ids)
        return True

    monkeypatch.setattr(queue, "send", send)
    yield queue
    queue.close()


def add_family(database: Database, storage: Storage, behaviour: int = fake.SUCCEED) -> tuple[str, str]:
    """A job, and one that waits for it."""
    parent, child = add_job(database, storage, behaviour), add_job(database, storage)
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == child).values(waits_for=parent))
    return parent, child


def test_a_waiting_job_is_neither_claimed_nor_sent(database: Database, storage: Storage) -> None:
    parent, child = add_family(database, storage)
    assert leases.claim(database, child, "w", 30) is None
    assert leases.to_send(database, 30) == ([parent], {})
    with database.write() as session:
        move(session, parent, "succeeded")
    settle(database)
    assert leases.to_send(database, 30) == ([child], {})
    assert leases.claim(database, child, "w", 30) == 1


@pytest.mark.usefixtures("fake_pipeline")
@pytest.mark.parametrize("behaviour", [fake.SUCCEED, fake.REFUSE])
def test_the_worker_that_ends_a_job_tells_those_that_wait_for_it(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue, sent: list[str], behaviour: int
) -> None:
    parent, child = add_family(database, storage, behaviour)
    Supervisor(settings, database, queue).run(parent)
    row = row_of(database, child)
    if behaviour == fake.SUCCEED:
        assert (row.state, row.waits_for, sent) == ("queued", None, [child])
    else:
        assert row.error is not None
        assert (row.state, row.error["type"], sent) == ("failed", "parent-failed", [])
        assert row.error["detail"] == f"job {parent} failed: quantisation-failed: layer conv1 cannot be mapped"


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_sweep_tells_those_whom_nobody_told(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue, sent: list[str], end: str
) -> None:
    parent, child = add_family(database, storage)
    with database.write() as session:
        move(session, parent, end)
    sweeper = Sweeper(settings, database, queue, lambda: None)
    sweeper.sweep(30)
    assert row_of(database, child).state == ("queued" if end == "succeeded" else "failed")
    assert sent == ([child] if end == "succeeded" else [])


def test_a_sweep_that_ends_a_lost_job_fails_those_that_wait_for_it(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue
) -> None:
    parent, child = add_family(database, storage)
    leases.claim(database, parent, "w", 30)
    sweeper = Sweeper(replace(settings, lease_seconds=0, max_losses=1), database, queue, lambda: None)
    for _ in ("it sees the lease", "it sees the same one"):
        sweeper.sweep(30)
    row = row_of(database, child)
    assert row.error is not None
    assert (row.state, row.error["detail"].startswith(f"job {parent} failed: worker-lost: ")) == ("failed", True)


def test_a_child_gives_the_same_bytes_however_early_it_was_submitted(tmp_path: Path) -> None:
    write_files(tmp_path)
    with LocalStack(tmp_path / "data") as stack, Client(stack.url, stack.key) as client:
        uploads = {
            "model": client.upload_model(tmp_path / "model.onnx"),
            "dataset": client.upload_dataset(tmp_path / "data.npz"),
        }
        train = {"epochs": 1, "batch_size": 20}
        parent = client.submit_job(JobSpec.model_validate({**uploads, "recipe": {"float": train}}))
        start = {"start_from": f"{parent.id}/float"}
        spec = JobSpec.model_validate({**uploads, **start, "recipe": {"hardware_exact": train}})
        early = client.submit_job(spec)
        assert early.job.waits_for == parent.id
        before, after = (job.wait(progress=False, timeout=300) for job in (parent, early))
        assert before.finished is not None
        assert after.started is not None
        assert before.finished <= after.started
        late = client.submit_job(spec)
        assert late.job.waits_for is None
        late.wait(progress=False, timeout=300)
        assert {"htvm/model.onnx", "report.json"} <= {artifact.path for artifact in early.artifacts()}
        assert early.artifacts() == late.artifacts()  # every hash


def test_of_many_who_tell_a_job_one_does(database: Database, storage: Storage) -> None:
    families = [add_family(database, storage) for _ in range(5)]
    with database.write() as session:
        for parent, _ in families:
            move(session, parent, "succeeded")
    with ThreadPoolExecutor(8) as pool:
        freed = [job for found in pool.map(lambda _: settle(database), range(8)) for job in found]
    children = [child for _, child in families]
    assert sorted(freed) == children
    assert [len(history(database, child)) for child in children] == [2] * 5
