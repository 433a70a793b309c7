"""What is kept of a long history, and what is not."""

from __future__ import annotations

import pytest
from databases import ON_BOTH
from sqlalchemy import text

from dianaq.schemas.events import Event, EventBody, LogBody, MetricsBody, ProgressBody, StageBody
from dianaq_service.events import thinning
from dianaq_service.events.repository import append, page

from .conftest import Api

pytestmark = ON_BOTH


def _job(api: Api) -> str:
    job = str(api.submit()["id"])
    api.put_in_state(job, "running", attempt=1)
    return job


def _append(api: Api, job: str, *bodies: EventBody) -> None:
    with api.services.database.write() as session:
        for body in bodies:
            assert append(session, job, body) == 1


def _history(api: Api, job: str) -> list[Event]:
    with api.services.database.read() as session:
        return page(session, job, 0, 10_000)


def _progress(label: str, step: int) -> ProgressBody:
    return ProgressBody(stage="float", label=label, step=step, total=9)


def test_the_newest_progress_of_each_label_is_kept(api: Api) -> None:
    job = _job(api)
    for epoch in ("epoch 1/2", "epoch 2/2"):
        _append(api, job, StageBody(stage="float", status="started"))
        _append(api, job, *(_progress(epoch, step) for step in range(1, 10)))
        _append(api, job, MetricsBody(stage="float", epoch=1, values={"loss": 1.0}))
    other = _job(api)
    _append(api, other, _progress("epoch 1/2", 3))
    # The same label in another stage is another one.
    _append(api, job, _progress("epoch 1/2", 1).model_copy(update={"stage": "hardware_mapped"}))
    events = _history(api, job)
    kinds = [event.body.type for event in events]
    assert kinds == ["state", "state", "stage", "progress", "metrics", "stage", "progress", "metrics", "progress"]
    assert [event.seq for event in events] == [1, 2, 3, 12, 13, 14, 23, 24, 25]
    assert [event.body.step for event in events if event.body.type == "progress"] == [9, 9, 1]
    assert len(_history(api, other)) == 3


def test_labels_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "PROGRESS_KEPT", 3)
    job = _job(api)
    for epoch in range(10):
        _append(api, job, _progress(f"epoch {epoch}", 1), _progress(f"epoch {epoch}", 2))
    assert [e.body.label for e in _history(api, job) if e.body.type == "progress"] == ["epoch 7", "epoch 8", "epoch 9"]


def test_a_job_that_logs_without_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "LOGS_FIRST", 3)
    monkeypatch.setattr(thinning, "LOGS_LAST", 2)
    job = _job(api)
    _append(api, job, *(LogBody(message=f"line {number}") for number in range(1, 51)))
    messages = [e.body.message for e in _history(api, job) if e.body.type == "log"]
    assert messages[:3] == ["line 1", "line 2", "line 3"]
    assert "has logged 3 lines" in messages[3]
    assert messages[4:] == ["line 49", "line 50"]


def test_a_log_within_the_bounds_is_whole(api: Api) -> None:
    job = _job(api)
    _append(api, job, *(LogBody(message=str(number)) for number in range(thinning.LOGS_FIRST - 1)))
    assert len(_history(api, job)) == 2 + thinning.LOGS_FIRST - 1


def test_long_messages_lose_their_middle(api: Api) -> None:
    job = _job(api)
    _append(api, job, LogBody(message="a" * 50_000 + "z" * 50_000), LogBody(message="b" * thinning.MESSAGE_CHARACTERS))
    cut, whole = (e.body.message for e in _history(api, job) if e.body.type == "log")
    half = thinning.MESSAGE_CHARACTERS // 2
    assert cut == f"{'a' * half}\n[92000 characters left out]\n{'z' * half}"
    assert whole == "b" * thinning.MESSAGE_CHARACTERS


def test_a_stream_goes_over_gaps_and_ends(api: Api) -> None:
    job = _job(api)
    _append(api, job, *(_progress("epoch 1/1", step) for step in range(1, 10)))
    api.put_in_state(job, "failed")
    response = api.client.get(f"/v1/jobs/{job}/events/stream", params={"after": 5})
    assert [line for line in response.text.splitlines() if line.startswith("id:")] == ["id: 11", "id: 12"]


def test_removing_reads_only_what_may_be_removed(api: Api) -> None:
    statement = """
        DELETE FROM events WHERE thinned IS NOT NULL AND job_id = 'j' AND thinned = 'progress' AND label = 'l'
        AND seq < 5
    """
    if not api.services.database.sqlite:
        pytest.skip("an empty table is scanned by PostgreSQL whatever its indices are")
    with api.services.database.read() as session:
        plan = session.execute(text(f"EXPLAIN QUERY PLAN {statement}")).all()
    assert "events_thinned" in str(plan)
