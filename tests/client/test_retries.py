"""Requests that change something, over a network that loses answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dianaq import Client, JobSpec, ServiceUnavailable
from dianaq.errors import Conflict, KeyInUse, Problem
from dianaq.schemas.events import StateBody

from .fake_service import KEY, FakeService
from .test_wait import HISTORY

SPEC = JobSpec(model="mod_1", dataset="dat_1")
IN_USE = KeyInUse("the first is under way").problem()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client would have made."""
    made: list[float] = []
    monkeypatch.setattr("dianaq._retry.PAUSE_SECONDS", 0.5)
    monkeypatch.setattr("dianaq._retry.time.sleep", made.append)
    return made


def _posts(service: FakeService) -> list[str]:
    return [request for request in service.requests if request.startswith("POST")]


@pytest.mark.parametrize("lost", [1, 3])
def test_an_answer_that_is_lost_is_asked_for_again(
    service: FakeService, client: Client, model_file: Path, lost: int, pauses: list[float]
) -> None:
    service.lost_answers = lost
    assert client.submit_job(SPEC).id == "job_1"
    service.lost_answers = lost
    client.upload_model(model_file)
    service.lost_answers = lost
    client.job("job_1").cancel()
    # Each was sent several times and done once: the whole file each time, under a key of its own.
    assert len(service.keys) == 3 * (lost + 1)
    assert len(set(service.keys)) == 3
    assert service.done == ["/v1/jobs", "/v1/models", "/v1/jobs/job_1/cancel"]
    assert service.uploads == {model_file.name: model_file.read_bytes()}
    assert len(pauses) == 3 * lost


@pytest.mark.parametrize("answer", [(502, "proxy"), (503, "proxy"), (504, "proxy"), IN_USE])
def test_waits_for_a_service_that_is_busy_or_restarts(
    service: FakeService, client: Client, answer: Problem | tuple[int, str], pauses: list[float]
) -> None:
    service.answers = [answer] * 3
    assert client.submit_job(SPEC).id == "job_1"
    assert len(set(service.keys)) == 1
    assert len(service.keys) == 4


def test_pauses_grow_and_differ(service: FakeService, client: Client, pauses: list[float]) -> None:
    service.answers = [(503, "away")] * 4
    client.submit_job(SPEC)
    assert [0.5 * 2**n <= pause <= 0.75 * 2**n for n, pause in enumerate(pauses)] == [True] * 4
    service.answers = [(503, "away")] * 4
    client.submit_job(SPEC)
    assert pauses[:4] != pauses[4:]


@pytest.mark.parametrize(("asked", "least", "most"), [("7", 7, 10.5), ("3600", 30, 45), ("soon", 0.5, 0.75)])
def test_pauses_as_the_service_asks(
    service: FakeService, client: Client, pauses: list[float], asked: str, least: float, most: float
) -> None:
    service.answers, service.retry_after = [(503, "away")], asked
    client.submit_job(SPEC)
    assert [least <= pause <= most for pause in pauses] == [True]


def test_gives_up_and_says_why(service: FakeService, client: Client, pauses: list[float]) -> None:
    service.answer = (503, "gone for good")
    with pytest.raises(ServiceUnavailable, match="503: gone for good"):
        client.submit_job(SPEC)
    service.answer, service.lost_answers = None, 100
    with pytest.raises(ServiceUnavailable, match="broke"):
        client.submit_job(SPEC)
    assert (len(_posts(service)), len(service.done)) == (10, 1)


def test_the_first_try_may_take_its_time(service: FakeService, client: Client, pauses: list[float]) -> None:
    service.answers = [IN_USE] * 50
    assert client.submit_job(SPEC).id == "job_1"


@pytest.mark.parametrize("status", [404, 409, 500])
def test_an_answer_is_an_answer(service: FakeService, client: Client, pauses: list[float], status: int) -> None:
    service.answer = Problem(type=Conflict.slug, title="t", detail="no", status=status)
    with pytest.raises(Conflict):
        client.submit_job(SPEC)
    assert pauses == []


def test_events_resume_with_the_last_id(service: FakeService, client: Client) -> None:
    service.add(*HISTORY, StateBody(state="succeeded"))
    service.per_stream = 4
    assert [event.seq for event in client.job("job_1").events(follow=True)] == list(range(1, 10))
    assert service.last_event_ids == ["0", "4", "8"]


def test_the_key_goes_with_nothing_that_changes_nothing(service: FakeService) -> None:
    with Client(service.url, KEY) as client:
        list(client.models())
    assert service.keys == []
