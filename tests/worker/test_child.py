"""What an attempt writes, and that it writes nothing once the job is not its own."""

from __future__ import annotations

import pytest
from databases import ON_BOTH
from sqlalchemy import select

from dianaq.schemas.events import MetricsBody, ProgressBody, StageBody
from dianaq.schemas.resources import Artifact
from dianaq_service.artifacts import repository as artifacts
from dianaq_service.database import CounterRow, Database
from dianaq_service.jobs.states import is_in, move
from dianaq_service.storage import Storage
from dianaq_worker import leases
from dianaq_worker.child import recorder as recording
from dianaq_worker.child.recorder import Overtaken, Recorder

from .support import add_job, history, overtake, row_of

pytestmark = ON_BOTH

FILES = [Artifact(path="report.json", size=2, sha256="0" * 64)]


@pytest.fixture
def job(database: Database, storage: Storage) -> str:
    job = add_job(database, storage)
    assert leases.claim(database, job, "w", 30) == 1
    return job


@pytest.fixture
def recorder(database: Database, job: str) -> Recorder:
    return Recorder(database, job, 1)


def cancel(database: Database, job: str) -> None:
    with database.write() as session:
        assert move(session, job, "cancelling", is_in("running"))


def test_the_row_keeps_the_stage_and_the_latest_metrics(database: Database, job: str, recorder: Recorder) -> None:
    recorder.emit(StageBody(stage="float", status="started"))
    recorder.emit(MetricsBody(stage="float", epoch=1, values={"val": 0.5, "loss": 2.0}))
    recorder.emit(MetricsBody(stage="float", epoch=2, values={"val": 0.6}))
    recorder.emit(StageBody(stage="float", status="finished", seconds=1.0))
    recorder.emit(StageBody(stage="verify", status="started"))
    recorder.emit(MetricsBody(stage="verify", values={"test": 0.7}))
    row = row_of(database, job)
    assert row.stage == "verify"
    assert row.metrics == {"float": {"val": 0.6, "loss": 2.0}, "verify": {"test": 0.7}}


def test_stages_steps_and_renewals_are_counted(
    database: Database, job: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PROGRESS_SECONDS", 0)
    for step in (1, 4, 10):
        recorder.emit(ProgressBody(stage="float", label="epoch 1/1", step=step, total=10))
    recorder.emit(StageBody(stage="float", status="finished", seconds=5.0))
    leases.renew(database, job, 1, 30)
    with database.read() as session:
        rows = session.scalars(select(CounterRow)).all()
    found = {(row.name, row.label, row.bucket): row.value for row in rows}
    assert found["stage_seconds", "float", "10"] == 1
    assert found["stage_seconds", "float", "sum"] == 5
    # The first step of an epoch has nothing to be measured from.
    assert sum(v for (name, _, bucket), v in found.items() if name == "step_seconds" and bucket != "sum") == 9
    assert found["lease_renewals", "", ""] == 1


def test_fast_progress_is_thinned_out(database: Database, job: str, recorder: Recorder) -> None:
    for label in ("epoch 1/2", "epoch 2/2"):
        for step in range(1, 101):
            recorder.emit(ProgressBody(stage="float", label=label, step=step, total=100))
    told = [e for e in history(database, job) if e.body.type == "progress"]
    # Most were not even written; of those that were, the last of each label is kept.
    assert told[-1].seq < 20
    assert [(e.body.label, e.body.step) for e in told] == [("epoch 1/2", 100), ("epoch 2/2", 100)]


def test_an_overtaken_attempt_is_stopped_at_its_next_word(
    database: Database, storage: Storage, job: str, recorder: Recorder
) -> None:
    overtake(database, job)
    before = history(database, job)
    with pytest.raises(Overtaken):
        recorder.emit(StageBody(stage="float", status="started"))
    with pytest.raises(Overtaken):
        recorder.should_stop()
    assert not recorder.succeed(FILES)
    recorder.cancel()
    with database.read() as session:
        assert artifacts.listing(session, job) == []
    assert (row_of(database, job).state, history(database, job)) == ("running", before)


def test_cancellation_is_seen(
    database: Database, job: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LOOK_SECONDS", 0.0)
    assert not recorder.should_stop()
    cancel(database, job)
    assert recorder.should_stop()
    # Still allowed to speak while it comes to its end.
    recorder.emit(StageBody(stage="float", status="finished", seconds=1.0))
    recorder.cancel()
    assert row_of(database, job).state == "cancelled"


def test_a_result_that_comes_after_the_cancellation_is_not_published(
    database: Database, job: str, recorder: Recorder
) -> None:
    cancel(database, job)
    assert not recorder.succeed(FILES)
    assert row_of(database, job).state == "cancelled"
    with database.read() as session:
        assert artifacts.listing(session, job) == []
