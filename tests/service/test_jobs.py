"""Submitting, listing and cancelling jobs."""

from __future__ import annotations

import os
from typing import Any

import pytest
from databases import ON_BOTH

from dianaq.errors import Problem
from dianaq.schemas.resources import Job, Page
from dianaq_service.database import ModelRow
from dianaq_service.jobs import kinds

from .conftest import MODEL_INFO, Api

pytestmark = ON_BOTH


def test_a_submitted_job_is_queued_even_without_a_broker(api: Api) -> None:
    job = Job.model_validate(api.submit(recipe={"preset": "qat", "float": {"epochs": 2}}))
    assert (job.state, job.attempt, job.started) == ("queued", 0, None)
    assert job.spec.recipe.float_.epochs == 2
    assert api.row(job.id).sent is None
    again = Job.model_validate(api.client.get(f"/v1/jobs/{job.id}").json())
    assert again.model_copy(update={"note": None}) == job


def test_a_job_says_when_no_worker_would_take_it(api: Api) -> None:
    jobs = {device: api.submit(device=device)["id"] for device in ("any", "cpu", "gpu")}

    def notes() -> dict[str, str | None]:
        return {device: api.client.get(f"/v1/jobs/{job}").json()["note"] for device, job in jobs.items()}

    assert notes() == {
        "any": "waits for a worker, and none is running",
        "cpu": "waits for a cpu worker, and none is running",
        "gpu": "waits for a gpu worker, and none is running",
    }
    kinds.mark(api.services.settings, "cpu")
    assert notes() == {"any": None, "cpu": None, "gpu": "waits for a gpu worker, and none is running"}
    mark = api.services.settings.data_dir / "workers" / "kinds" / "cpu"
    os.utime(mark, (0, 0))
    assert notes()["any"] == "waits for a worker, and none is running"
    api.put_in_state(jobs["gpu"], "running", attempt=1)
    assert notes()["gpu"] is None


def test_a_row_says_where_and_when_its_job_runs(api: Api) -> None:
    row = api.row(api.submit()["id"])
    assert (row.device, row.priority, row.ran_seconds) == ("any", 1, 0)
    row = api.row(api.submit(device="gpu", priority="high")["id"])
    assert (row.device, row.priority) == ("gpu", 2)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "mdl_none"}, "model"),
        ({"dataset": "dat_none"}, "dataset"),
        ({"recipe": {"float": {"learning_rate": -1}}}, "recipe.float.learning_rate"),
        ({"recipe": {"preset": "magic"}}, "recipe.preset"),
        ({"device": "tpu"}, "device"),
        ({"priority": "urgent"}, "priority"),
        ({"deadline_hours": 0}, "deadline_hours"),
        ({"recipe": {"epochs": 3}}, "recipe.epochs"),
        ({"mapping": {"layers": {"conv9": "digital"}}}, None),
    ],
)
def test_a_spec_that_cannot_be_used(api: Api, change: dict[str, Any], param: str | None) -> None:
    body = {"model": api.add_model(), "dataset": api.add_dataset(), **change}
    response = api.client.post("/v1/jobs", json=body)
    problem = Problem.model_validate(response.json())
    assert (response.status_code, problem.type) == (422, "invalid-spec")
    if param:
        assert problem.param == param
    else:
        assert "conv9" in problem.detail
    assert api.client.get("/v1/jobs").json()["items"] == []


def test_others_uploads_cannot_be_used(api: Api) -> None:
    body = {"model": api.add_model("bob"), "dataset": api.add_dataset()}
    response = api.client.post("/v1/jobs", json=body)
    assert (response.status_code, response.json()["param"]) == (422, "model")


def test_others_jobs_do_not_exist(api: Api) -> None:
    job = api.submit()["id"]
    assert api.client.get("/v1/jobs", headers=api.bob).json()["items"] == []
    for method, path in [
        ("GET", ""),
        ("POST", "/cancel"),
        ("GET", "/events"),
        ("GET", "/events/stream"),
        ("GET", "/artifacts"),
        ("GET", "/artifacts/bundle.zip"),
    ]:
        response = api.client.request(method, f"/v1/jobs/{job}{path}", headers=api.bob)
        assert response.status_code == 404, path
        assert response.json()["detail"] == f"there is no job '{job}'"
    assert api.row(job).state == "queued"


def test_pages_run_through_every_job_once_newest_first(api: Api) -> None:
    made = [api.submit()["id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = Page[Job].model_validate(api.client.get("/v1/jobs", params=query).json())
        seen += [job.id for job in page.items]
        if (cursor := page.next) is None:
            break
    assert seen == made[::-1]


def test_filter_by_state(api: Api) -> None:
    first, second = api.submit()["id"], api.submit()["id"]
    api.client.post(f"/v1/jobs/{first}/cancel")
    for state, expected in (("cancelled", first), ("queued", second)):
        items = api.client.get("/v1/jobs", params={"state": state}).json()["items"]
        assert [job["id"] for job in items] == [expected]


def test_cancelling_a_queued_job_is_immediate_and_may_be_repeated(api: Api) -> None:
    job = api.submit()["id"]
    for _ in range(2):
        response = api.client.post(f"/v1/jobs/{job}/cancel")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    assert response.json()["finished"] is not None
    events = api.client.get(f"/v1/jobs/{job}/events").json()["items"]
    assert [event["body"]["state"] for event in events] == ["queued", "cancelled"]


def test_cancelling_a_running_job_asks_it_to_end(api: Api) -> None:
    job = api.submit()["id"]
    api.put_in_state(job, "running", attempt=1)
    for _ in range(2):
        assert api.client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelling"


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_job_that_has_ended_cannot_be_cancelled(api: Api, state: str) -> None:
    job = api.submit()["id"]
    api.put_in_state(job, state)
    response = api.client.post(f"/v1/jobs/{job}/cancel")
    assert (response.status_code, response.json()["type"]) == (409, "conflict")
    assert state in response.json()["detail"]


def test_activations_that_no_core_computes_are_refused_before_a_job_is_queued(api: Api) -> None:
    info = MODEL_INFO.model_copy(update={"substitutable": {"act": "hardswish"}})
    spec = {"model": api.add(ModelRow, "mdl", "alice", info), "dataset": api.add_dataset()}
    answer = api.client.post("/v1/jobs", json=spec)
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["type"], problem["param"]) == ("unsupported-operator", "act")
    assert "substitute: {hardswish: relu6} in the job" in problem["detail"]
    assert api.client.get("/v1/jobs").json()["items"] == []
    answer = api.client.post("/v1/jobs", json={**spec, "substitute": {"hardswish": "relu6"}})
    assert answer.status_code == 201
    assert answer.json()["spec"]["substitute"] == {"hardswish": "relu6"}
