"""Jobs that wait for the job they start from."""

from __future__ import annotations

from typing import Any

import pytest
from databases import ON_BOTH

from dianaq.errors import Problem, WorkerLost
from dianaq.schemas.events import ITERATIONS
from dianaq.schemas.resources import DatasetInfo, SplitInfo, TensorInfo
from dianaq.schemas.spec import checkpoint_of
from dianaq_service.database import DatasetRow, ModelRow
from dianaq_service.jobs.families import settle

from .conftest import MODEL_INFO, ZOO, Api

pytestmark = ON_BOTH

LOST = WorkerLost("3 attempts of the job ended without a report")


def child_of(api: Api, parent: str, iteration: str = "float", **spec: Any) -> str:
    """A job that starts from another one's network."""
    return str(api.submit(model=api.row(parent).model_id, start_from=f"{parent}/{iteration}", **spec)["id"])


def succeed(api: Api, job: str) -> None:
    api.succeed(job, *map(checkpoint_of, ITERATIONS))


def get(api: Api, job: str) -> dict[str, Any]:
    return dict(api.client.get(f"/v1/jobs/{job}").json())


def told(api: Api, job: str) -> list[str]:
    """The job's events, in words."""
    bodies = [event["body"] for event in api.client.get(f"/v1/jobs/{job}/events").json()["items"]]
    return [body.get("state") or body["message"] for body in bodies]


@pytest.fixture
def parent(api: Api) -> str:
    return str(api.submit()["id"])


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_waits_for_a_parent_that_has_not_ended_and_is_freed_by_its_success(
    api: Api, parent: str, state: str
) -> None:
    if state == "running":
        api.put_in_state(parent, "running", attempt=1)
    child = child_of(api, parent)
    assert (get(api, child)["state"], get(api, child)["waits_for"]) == ("queued", parent)
    assert settle(api.services.database) == []
    assert get(api, child)["waits_for"] == parent
    succeed(api, parent)
    assert settle(api.services.database) == [child]
    assert settle(api.services.database) == []
    assert (get(api, child)["state"], get(api, child)["waits_for"]) == ("queued", None)
    assert told(api, child) == ["queued", f"waits for job {parent}", f"job {parent} has succeeded, this one can start"]


def test_a_job_whose_parent_has_succeeded_waits_for_nobody(api: Api, parent: str) -> None:
    succeed(api, parent)
    child = child_of(api, parent)
    assert get(api, child)["waits_for"] is None
    assert told(api, child) == ["queued"]


def test_a_failed_parent_fails_its_descendants_for_its_reason(api: Api, parent: str) -> None:
    children = [child_of(api, parent) for _ in "12"]
    grandchild = child_of(api, children[0], "fake_quantised")
    unrelated = child_of(api, str(api.submit()["id"]))
    api.put_in_state(parent, "failed", error=LOST.problem())
    assert settle(api.services.database) == []
    why = f"job {parent} failed: worker-lost: {LOST.detail}"
    for job, detail in ((children[0], why), (children[1], why), (grandchild, f"job {children[0]} failed: {why}")):
        found = get(api, job)
        error = Problem.model_validate(found["error"])
        assert (found["state"], found["attempt"], error.type, error.param) == (
            "failed",
            0,
            "parent-failed",
            "start_from",
        )
        assert error.detail == detail
        assert told(api, job)[-1] == "failed"
    assert get(api, unrelated)["state"] == "queued"


def test_cancelling_a_parent_that_nobody_has_started_fails_its_descendants_at_once(api: Api, parent: str) -> None:
    child = child_of(api, parent)
    grandchild = child_of(api, child, "fake_quantised")
    api.client.post(f"/v1/jobs/{parent}/cancel")
    assert get(api, child)["error"]["detail"] == f"job {parent} was cancelled"
    assert get(api, grandchild)["error"]["detail"] == f"job {child} failed: job {parent} was cancelled"


def test_a_waiting_job_can_be_cancelled_and_then_stays_so(api: Api, parent: str) -> None:
    child = child_of(api, parent)
    grandchild = child_of(api, child, "fake_quantised")
    assert api.client.post(f"/v1/jobs/{child}/cancel").json()["state"] == "cancelled"
    assert get(api, grandchild)["error"]["detail"] == f"job {child} was cancelled"
    succeed(api, parent)
    assert settle(api.services.database) == []
    assert get(api, child)["state"] == "cancelled"


def test_a_chain_is_freed_link_by_link(api: Api, parent: str) -> None:
    child = child_of(api, parent)
    grandchild = child_of(api, child, "fake_quantised")
    succeed(api, parent)
    assert settle(api.services.database) == [child]
    succeed(api, child)
    assert settle(api.services.database) == [grandchild]


def refused(api: Api, **spec: Any) -> Problem:
    before = len(api.client.get("/v1/jobs").json()["items"])
    response = api.client.post("/v1/jobs", json={"dataset": api.add_dataset(), **spec})
    assert response.status_code == 422, response.text
    assert len(api.client.get("/v1/jobs").json()["items"]) == before
    return Problem.model_validate(response.json())


def test_what_a_waiting_job_cannot_start_from_is_refused_when_it_is_submitted(api: Api, parent: str) -> None:
    model = api.row(parent).model_id
    late = child_of(api, parent, "hardware_mapped")
    last = child_of(api, parent, "hardware_exact")
    skipped = refused(api, model=model, start_from=f"{late}/fake_quantised")
    assert (skipped.type, skipped.param) == ("invalid-spec", "start_from")
    assert skipped.detail.endswith(
        f"starts from {parent}/hardware_mapped and will leave no checkpoints/fake_quantised.pt; "
        "start from its hardware_exact"
    )
    assert "no job can start from it" in refused(api, model=model, start_from=f"{last}/hardware_exact").detail
    assert "of another network" in refused(api, model=ZOO, start_from=f"{parent}/float").detail
    assert refused(api, model=model, start_from=f"{parent}/float", task="reconstruction").type == "invalid-model"
    body = {"model": api.add_model("bob"), "dataset": api.add_dataset("bob"), "start_from": f"{parent}/float"}
    foreign = api.client.post("/v1/jobs", json=body, headers=api.bob)
    assert (foreign.status_code, foreign.json()["detail"]) == (422, f"there is no job '{parent}' to start from")


def test_the_task_is_that_of_the_parent(api: Api) -> None:
    vector = TensorInfo(name="x", shape=(4,))
    split = SplitInfo(samples=9, sample_shape=(4,), dtype="float32", label_min=0, label_max=0)
    info = MODEL_INFO.model_copy(update={"input": vector, "output": vector})
    uploads = {
        "model": api.add(ModelRow, "mdl", "alice", info),
        "dataset": api.add(DatasetRow, "dat", "alice", DatasetInfo(splits={"train": split})),
    }
    parent = api.submit(**uploads)["id"]
    problem = refused(api, **uploads, task="reconstruction", start_from=f"{parent}/float")
    assert (problem.param, problem.detail) == (
        "task",
        f"job {parent} is of the task classification, this one of reconstruction",
    )


def test_the_weights_of_a_zoo_network_are_known_along_a_chain_that_waits(api: Api) -> None:
    weights = api.add_weights()
    first = api.submit(model={**ZOO, "weights": weights})["id"]
    second = api.submit(model=ZOO, start_from=f"{first}/float")["id"]
    third = api.submit(model={**ZOO, "weights": weights}, start_from=f"{second}/fake_quantised")
    assert third["waits_for"] == second
    random = api.submit(model=ZOO, recipe={"float": {"epochs": 1}})["id"]
    problem = refused(api, model={**ZOO, "weights": weights}, start_from=f"{random}/float")
    assert problem.param == "model.weights"
