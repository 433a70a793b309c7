"""Reading a job's history, whole or from somewhere on."""

from __future__ import annotations

import json

import pytest
from databases import ON_BOTH

from dianaq.errors import Problem
from dianaq.schemas.events import Event, LogBody, ProgressBody
from dianaq_service.events import follow as following
from dianaq_service.events.repository import append

from .conftest import Api


def _history(api: Api, logs: int) -> str:
    job = str(api.submit()["id"])
    api.put_in_state(job, "running", attempt=1)
    with api.services.database.write() as session:
        for number in range(logs):
            append(session, job, LogBody(message=f"line {number}"))
    problem = Problem(type="quantisation-failed", title="t", detail="d", status=422, param="conv1")
    api.put_in_state(job, "failed", error=problem)
    return job


def _stream(api: Api, job: str, query: str = "", **headers: str) -> list[tuple[int, Event]]:
    response = api.client.get(f"/v1/jobs/{job}/events/stream{query}", headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), Event.model_validate_json(fields["data"])))
    return found


@ON_BOTH
def test_pages(api: Api) -> None:
    job = _history(api, logs=5)
    response = api.client.get(f"/v1/jobs/{job}/events", params={"after": -1})
    assert (response.status_code, response.json()["param"]) == (422, "after")
    events, after = [], 0
    while True:
        page = api.client.get(f"/v1/jobs/{job}/events", params={"after": after, "limit": 3}).json()
        events += [Event.model_validate(item) for item in page["items"]]
        if page["next"] is None:
            break
        after = int(page["next"])
    assert [event.seq for event in events] == list(range(1, 9))
    assert [event.attempt for event in events] == [0] + [1] * 7
    assert events[-1].body.error.param == "conv1"


def test_stream_replays_and_ends_after_the_terminal_event(api: Api) -> None:
    job = _history(api, logs=3)
    found = _stream(api, job)
    assert [number for number, _ in found] == list(range(1, 7))
    assert found[-1][1].body.state == "failed"


def test_stream_resumes(api: Api) -> None:
    job = _history(api, logs=3)
    assert [number for number, _ in _stream(api, job, "?after=4")] == [5, 6]
    # What the client last saw wins over the address that it reconnects to.
    assert [number for number, _ in _stream(api, job, "?after=1", **{"Last-Event-ID": "5"})] == [6]
    assert _stream(api, job, "?after=6") == []
    response = api.client.get(f"/v1/jobs/{job}/events/stream", headers={"Last-Event-ID": "x"})
    assert (response.status_code, response.json()["param"]) == (422, "last-event-id")


def test_stream_of_a_running_job_ends_after_a_while(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_SECONDS", 0.3)
    job = str(api.submit()["id"])
    assert [event.body.state for _, event in _stream(api, job)] == ["queued"]


def test_stream_ends_when_the_server_stops(api: Api) -> None:
    job = str(api.submit()["id"])
    api.services.stopping.set()
    assert _stream(api, job) == []


@ON_BOTH
def test_an_event_and_its_condition_are_one(api: Api) -> None:
    job = str(api.submit()["id"])
    body = ProgressBody(stage="float", label="epoch 1/1", step=1, total=2)
    with api.services.database.write() as session:
        assert append(session, job, body, api.row(job).__class__.attempt == 7) is None
    page = api.client.get(f"/v1/jobs/{job}/events").json()
    assert json.dumps(page).count('"seq"') == 1
