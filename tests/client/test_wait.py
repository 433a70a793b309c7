"""Waiting for a job: through dropped connections, without streams, to every kind of end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import pytest

from dianaq import Client, JobCancelled, JobFailed, ServiceUnavailable
from dianaq._display import figures
from dianaq.errors import Problem
from dianaq.schemas.events import LogBody, MetricsBody, ProgressBody, StageBody, StateBody

from .fake_service import FakeService

HISTORY = (
    StateBody(state="queued"),
    StateBody(state="running"),
    StageBody(stage="float", status="started"),
    ProgressBody(stage="float", label="epoch 1/1", step=1, total=2),
    MetricsBody(stage="float", epoch=1, values={"loss": 0.5}),
    MetricsBody(stage="float", values={"accuracy_val": 0.5, "accuracy_test": 0.8125}),
    StageBody(stage="float", status="finished", seconds=12.34),
    LogBody(level="warning", message="look here"),
)
PROBLEM = Problem(type="quantisation-failed", title="It cannot be brought", detail="layer 'c1' is too wide", param="c1")


@contextmanager
def later(seconds: float, action: object, *arguments: object) -> Iterator[None]:
    timer = Timer(seconds, action, arguments)  # type: ignore[arg-type]
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_shows_stages_and_ends(service: FakeService, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    service.add(*HISTORY, StateBody(state="succeeded"))
    assert client.job("job_1").wait().state == "succeeded"
    out, err = capsys.readouterr()
    assert err == ""
    assert out.split("\n") == [
        "  float               12.3 s   val  50.00%   test  81.25%",
        "  warning: look here",
        "",
    ]


def test_is_silent_when_told(service: FakeService, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    service.add(*HISTORY, StateBody(state="succeeded"))
    client.job("job_1").wait(progress=False)
    assert capsys.readouterr().out == ""


def test_resumes_after_the_last_event(service: FakeService, client: Client) -> None:
    service.add(*HISTORY, StateBody(state="succeeded"))
    service.per_stream = 2
    seen = [event.seq for event in client.job("job_1").events(follow=True)]
    assert seen == list(range(1, 10))
    streams = [r.partition("after=")[2] for r in service.requests if "/stream" in r]
    assert streams == ["0", "2", "4", "6", "8"]


@pytest.mark.parametrize("per_stream", [0, None])
def test_polls_where_streams_do_not_work(service: FakeService, client: Client, per_stream: int | None) -> None:
    service.streams, service.per_stream = per_stream == 0, per_stream
    service.add(*HISTORY)
    with later(0.3, service.add, StateBody(state="succeeded")):
        seen = [event.seq for event in client.job("job_1").events(follow=True)]
    assert seen == list(range(1, 10))


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_an_ended_job_ends_the_wait_without_its_event(service: FakeService, client: Client, state: str) -> None:
    service.add(*HISTORY)
    service.on_stream_end = lambda: service.move(state)  # type: ignore[arg-type]
    assert client.job("job_1").wait(raise_on_failure=False).state == state


def test_failure_carries_its_cause(service: FakeService, client: Client) -> None:
    service.add(StateBody(state="failed", error=PROBLEM))
    with pytest.raises(JobFailed, match=r"job_1 failed: It cannot be brought: layer 'c1' is too wide") as caught:
        client.job("job_1").wait()
    assert caught.value.cause == PROBLEM
    assert client.job("job_1").wait(raise_on_failure=False).error == PROBLEM


def test_cancel_ends_the_wait(service: FakeService, client: Client) -> None:
    service.add(*HISTORY)
    job = client.job("job_1")
    with later(0.1, client.job("job_1").cancel), pytest.raises(JobCancelled, match="job_1"):
        job.wait()
    assert job.state == "cancelled"


def test_timeout_leaves_the_job_alone(service: FakeService, client: Client) -> None:
    service.add(*HISTORY)
    with pytest.raises(TimeoutError, match=r"still running after 0\.1 s"):
        client.job("job_1").wait(timeout=0.1)
    assert not any("cancel" in request for request in service.requests)


def test_outlives_a_short_absence(service: FakeService, client: Client) -> None:
    service.add(*HISTORY, StateBody(state="succeeded"))
    job = client.job("job_1")
    service.answer = (503, "starting")
    with later(0.2, setattr, service, "answer", None):
        assert job.wait(progress=False).state == "succeeded"


def test_gives_up_on_a_long_absence(service: FakeService, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dianaq._follow.PATIENCE_SECONDS", 0.1)
    job = client.job("job_1")
    service.answer = (503, "gone")
    with pytest.raises(ServiceUnavailable, match="503: gone"):
        job.wait()


def test_history_reads_every_page(service: FakeService, client: Client) -> None:
    service.add(*HISTORY)
    assert [event.seq for event in client.job("job_1").events(after=1)] == list(range(2, 9))


def test_draws_a_bar_where_a_person_watches(
    service: FakeService, client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dianaq._display.is_watched", lambda: True)
    service.add(*HISTORY, StateBody(state="succeeded"))
    client.job("job_1").wait()
    out, err = capsys.readouterr()
    assert "float           epoch 1/1" in err
    assert "1/2" in err
    assert "float               12.3 s" in out


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"loss_val": 2.0, "accuracy_val": 0.5, "top5_val": 0.9, "loss": 0.25}, "val  50.00%   loss 0.2500"),
        ({"mse_test": 0.000123456, "auc_test": 0.95678}, "test AUC 0.9568   test MSE 0.0001235"),
        ({"loss": 0.1, "mse_val": 0.5, "objective_val": 3.0}, "val MSE 0.5000   loss 0.1000"),
    ],
)
def test_a_line_shows_the_figures_that_a_reader_looks_for(values: dict[str, float], shown: str) -> None:
    assert figures(values) == shown
