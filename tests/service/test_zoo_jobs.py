"""Jobs of networks of the zoo, and jobs that start from others."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from dianaq.errors import Problem
from dianaq_service.database import ModelRow

from .conftest import ZOO, Api

CHECKPOINT = "checkpoints/fake_quantised.pt"
TRAINED = {"recipe": {"float": {"epochs": 1}}}


def refused(api: Api, status: int, slug: str, **body: Any) -> Problem:
    """The submission is refused like this."""
    response = api.client.post("/v1/jobs", json={"dataset": api.add_dataset(), **body})
    problem = Problem.model_validate(response.json())
    assert (response.status_code, problem.type) == (status, slug), problem
    return problem


def test_a_network_without_weights_has_no_model(api: Api) -> None:
    job = api.submit(model=ZOO, **TRAINED)
    assert api.row(job["id"]).model_id is None
    assert job["spec"]["model"] == {**ZOO, "width": 1.0, "weights": None}
    got = api.client.get(f"/v1/jobs/{job['id']}").json()
    assert got == {**job, "note": got["note"]}


def test_weights_stay_while_a_job_needs_them(api: Api) -> None:
    weights = api.add_weights()
    job = api.submit(model={**ZOO, "weights": weights})
    response = api.client.delete(f"/v1/models/{weights}")
    assert response.status_code == 409
    assert job["id"] in response.json()["detail"]
    api.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert api.client.delete(f"/v1/models/{weights}").status_code == 204


def test_networks_and_weights_are_not_exchangeable(api: Api) -> None:
    network, weights = api.add_model(), api.add_weights()
    assert "--zoo" in refused(api, 422, "invalid-model", model=weights).detail
    assert "ONNX" in refused(api, 422, "invalid-model", model={**ZOO, "weights": network}).detail
    missing = refused(api, 422, "invalid-spec", model={**ZOO, "weights": "mdl_none"})
    assert (missing.param, "there is no model weights 'mdl_none'" in missing.detail) == ("model.weights", True)
    foreign = refused(api, 422, "invalid-spec", model={**ZOO, "weights": api.add_weights("bob")})
    assert foreign.param == "model.weights"


@pytest.mark.parametrize(
    ("model", "param"),
    [
        ({**ZOO, "classes": 1}, "model.classes"),
        ({**ZOO, "architecture": "vgg"}, "model.architecture"),
        ({"architecture": "resnet8", "input_shape": [3, 8, 8]}, "model.classes"),
    ],
)
def test_errors_in_a_network_are_named(api: Api, model: dict[str, Any], param: str) -> None:
    assert refused(api, 422, "invalid-spec", model=model, **TRAINED).param == param


def test_the_data_must_fit_the_network(api: Api) -> None:
    assert "label 9" in refused(api, 422, "invalid-dataset", model={**ZOO, "classes": 4}, **TRAINED).detail


@pytest.fixture
def parent(api: Api) -> str:
    """A job of an uploaded network that left a checkpoint."""
    job = str(api.submit()["id"])
    api.succeed(job, CHECKPOINT, "bundle.zip")
    return job


def test_a_job_starts_from_another_one(api: Api, parent: str) -> None:
    start = f"{parent}/fake_quantised"
    job = api.submit(model=api.row(parent).model_id, start_from=start)
    assert job["spec"]["start_from"] == start


def test_the_same_file_uploaded_again_is_the_same_network(api: Api, parent: str) -> None:
    again = api.add_model()
    assert again != api.row(parent).model_id
    api.submit(model=again, start_from=f"{parent}/fake_quantised")


def test_another_network_is_refused(api: Api, parent: str) -> None:
    other = api.add_model()
    with api.services.database.write() as session:
        session.execute(update(ModelRow).where(ModelRow.id == other).values(sha256="1" * 64))
    start = {"start_from": f"{parent}/fake_quantised"}
    for model in (other, {**ZOO, "weights": None}):
        problem = refused(api, 422, "invalid-spec", model=model, **start)
        assert (problem.param, "of another network" in problem.detail) == ("start_from", True)


def test_a_network_whose_upload_is_gone_cannot_be_compared(api: Api, parent: str) -> None:
    assert api.client.delete(f"/v1/models/{api.row(parent).model_id}").status_code == 204
    start = {"start_from": f"{parent}/fake_quantised"}
    assert "removed" in refused(api, 422, "invalid-spec", model=api.add_model(), **start).detail


def test_networks_of_the_zoo_are_compared_by_what_they_are(api: Api) -> None:
    parent = api.submit(model=ZOO, **TRAINED)["id"]
    api.succeed(parent, "checkpoints/float.pt")
    api.submit(model=ZOO, start_from=f"{parent}/float")
    for change in ({"width": 0.5}, {"architecture": "resnet20"}, {"classes": 11}):
        assert (
            "of another network"
            in refused(api, 422, "invalid-spec", model={**ZOO, **change}, start_from=f"{parent}/float").detail
        )
    refused(api, 422, "invalid-spec", model=api.add_model(), start_from=f"{parent}/float")


def test_a_zoo_network_keeps_the_weights_that_it_was_made_from(api: Api) -> None:
    weights, other = api.add_weights(), api.add_weights()
    with api.services.database.write() as session:
        session.execute(update(ModelRow).where(ModelRow.id == other).values(sha256="1" * 64))
    first = api.submit(model={**ZOO, "weights": weights})["id"]
    api.succeed(first, "checkpoints/float.pt")
    second = api.submit(model=ZOO, start_from=f"{first}/float")["id"]
    api.succeed(second, "checkpoints/float.pt")
    random = api.submit(model=ZOO, **TRAINED)["id"]
    api.succeed(random, "checkpoints/float.pt")
    for parent in (first, second):
        for same in (weights, api.add_weights()):
            api.submit(model={**ZOO, "weights": same}, start_from=f"{parent}/float")
    for parent, name in ((first, other), (second, other), (random, weights)):
        problem = refused(api, 422, "invalid-spec", model={**ZOO, "weights": name}, start_from=f"{parent}/float")
        assert (problem.param, "not made from these weights" in problem.detail) == ("model.weights", True)


@pytest.mark.parametrize("state", ["cancelling", "failed", "cancelled"])
def test_a_job_that_will_not_succeed_is_no_start(api: Api, parent: str, state: str) -> None:
    api.put_in_state(parent, state)
    model = api.row(parent).model_id
    problem = refused(api, 409, "conflict", model=model, start_from=f"{parent}/fake_quantised")
    assert (problem.param, f"job {parent} is {state}" in problem.detail) == ("start_from", True)


def test_a_job_without_that_checkpoint_is_no_start(api: Api, parent: str) -> None:
    problem = refused(api, 409, "conflict", model=api.row(parent).model_id, start_from=f"{parent}/float")
    assert "left no checkpoints/float.pt, as jobs of older versions" in problem.detail


def test_unknown_and_foreign_jobs_are_no_start(api: Api, parent: str) -> None:
    problem = refused(api, 422, "invalid-spec", model=api.add_model(), start_from="job_none/float")
    assert (problem.param, problem.detail) == ("start_from", "there is no job 'job_none' to start from")
    body = {"model": api.add_model("bob"), "dataset": api.add_dataset("bob"), "start_from": f"{parent}/fake_quantised"}
    response = api.client.post("/v1/jobs", json=body, headers=api.bob)
    assert (response.status_code, response.json()["detail"]) == (422, f"there is no job '{parent}' to start from")
