"""Sweeps: all jobs or none, their states, and their table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from databases import ON_BOTH

from dianaq.errors import Problem, QuantisationError
from dianaq.schemas.resources import Job, Page
from dianaq.schemas.sweep_table import Costs, SweepTable
from dianaq.schemas.sweeps import MAX_JOBS, Sweep, SweepWithJobs
from dianaq_service.jobs.families import settle

from .conftest import ZOO, Api

GRID = {"recipe.hardware_mapped.learning_rate": [0.01, 0.02], "recipe.seed": [0, 1, 2]}
COST = {"macs": 1, "cycles": 2.0, "latency_s": 1e-3, "energy_j": 2e-6, "not_modelled": []}
MEMORY = {
    "weight_bytes": 100,
    "analog_weight_bytes": 0,
    "peak_activation_bytes": 50,
    "peak_layer": "x",
    "total_bytes": 150,
    "limits": {},
    "exceeded": [],
}


def submit(api: Api, grid: dict[str, Any], **job: Any) -> SweepWithJobs:
    body = {"job": {"model": api.add_model(), "dataset": api.add_dataset(), **job}, "grid": grid}
    response = api.client.post("/v1/sweeps", json=body)
    assert response.status_code == 201, response.text
    return SweepWithJobs.model_validate(response.json())


def refused(api: Api, grid: Any, status: int = 422, **job: Any) -> Problem:
    body = {"job": {"model": api.add_model(), "dataset": api.add_dataset(), **job}, "grid": grid}
    response = api.client.post("/v1/sweeps", json=body)
    assert response.status_code == status, response.text
    return Problem.model_validate(response.json())


def get(api: Api, sweep_id: str) -> SweepWithJobs:
    return SweepWithJobs.model_validate(api.client.get(f"/v1/sweeps/{sweep_id}").json())


def table(api: Api, sweep_id: str) -> SweepTable:
    return SweepTable.model_validate(api.client.get(f"/v1/sweeps/{sweep_id}/table").json())


@ON_BOTH
def test_one_submission_makes_a_job_for_every_point_in_the_order_of_the_grid(api: Api) -> None:
    sweep = submit(api, GRID, recipe={"preset": "qat-fast"})
    assert sweep.states == {"queued": 6}
    points = [tuple(job.point.values()) for job in sweep.jobs]
    assert points == [(rate, seed) for rate in (0.01, 0.02) for seed in (0, 1, 2)]
    assert get(api, sweep.id) == sweep
    for entry in sweep.jobs:
        job = Job.model_validate(api.client.get(f"/v1/jobs/{entry.id}").json())
        recipe = job.spec.recipe
        assert (recipe.hardware_mapped.learning_rate, recipe.seed) == tuple(entry.point.values())
        assert (recipe.preset, recipe.hardware_mapped.epochs) == ("qat-fast", 2)
        assert (job.sweep_id, job.point) == (sweep.id, entry.point)
    events = api.client.get(f"/v1/jobs/{sweep.jobs[0].id}/events").json()["items"]
    assert [event["body"]["state"] for event in events] == ["queued"]


def test_any_field_can_be_swept(api: Api) -> None:
    networks = [{**ZOO, "width": width} for width in (0.5, 1)]
    grid = {"model": networks, "mapping.default": ["digital", "analog"], "recipe.preset": ["ptq", "qat"]}
    sweep = submit(api, grid, recipe={"float": {"epochs": 1}})
    assert len(sweep.jobs) == 8
    last = Job.model_validate(api.client.get(f"/v1/jobs/{sweep.jobs[-1].id}").json()).spec
    assert (last.mapping.default, last.recipe.preset, last.recipe.hardware_mapped.epochs) == ("analog", "qat", 12)
    assert last.recipe.float_.epochs == 1


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({}, "grid is empty"),
        ({"recipe.seed": []}, "no values for recipe.seed"),
        ({"recipe.seed": [1, 2, 1]}, "the value 1 for recipe.seed twice"),
        ({"seed": [1]}, "a path starts with a field of the job specification (model, dataset,"),
        ({"recipe..seed": [1]}, "has the path 'recipe..seed'"),
        ({f"recipe.{'a.' * 5000}a": [1]}, "a path starts with"),
        ({"recipe": [{}], "recipe.seed": [1]}, "recipe.seed, which is a part of it"),
        ({"recipe.seed": list(range(MAX_JOBS + 1))}, f"has 257 points (257); a sweep has at most {MAX_JOBS} jobs"),
        ({"recipe.seed": [0, -1]}, "point 2 of 2 (recipe.seed: -1): recipe.seed: "),
        ({"recipe.sede": [1]}, "recipe.sede: there is no such field; did you mean 'seed'? (got 1)"),
        ({"dataset.x": [1]}, "grid sets dataset.x, but what the job has at dataset is 'dat_"),
        (
            {"mapping.layers": [{}, {"conv9": "digital"}]},
            "point 2 of 2 (mapping.layers: {'conv9': 'digital'}): mapping.",
        ),
        ({"model": ["mdl_none"]}, "there is no model 'mdl_none'"),
    ],
)
def test_a_sweep_that_cannot_be_used_makes_no_job(api: Api, grid: dict[str, Any], words: str) -> None:
    problem = refused(api, grid)
    assert problem.type == "invalid-spec"
    assert words in problem.detail
    assert api.client.get("/v1/jobs").json()["items"] == []
    assert api.client.get("/v1/sweeps").json()["items"] == []


def test_the_error_of_a_point_keeps_its_kind(api: Api) -> None:
    problem = refused(api, {"model.classes": [10, 4]}, model=ZOO, recipe={"float": {"epochs": 1}})
    assert (problem.type, problem.param) == ("invalid-dataset", "y_train")
    assert problem.detail.startswith("point 2 of 2 (model.classes: 4): y_train holds the label 9")
    assert api.client.get("/v1/jobs").json()["items"] == []


def test_the_largest_sweep(api: Api) -> None:
    assert submit(api, {"recipe.seed": list(range(MAX_JOBS))}).states == {"queued": MAX_JOBS}


def test_others_sweeps_do_not_exist(api: Api) -> None:
    sweep = submit(api, GRID)
    assert api.client.get("/v1/sweeps", headers=api.bob).json()["items"] == []
    for method, path in (("GET", ""), ("GET", "/table"), ("POST", "/cancel")):
        response = api.client.request(method, f"/v1/sweeps/{sweep.id}{path}", headers=api.bob)
        assert (response.status_code, response.json()["detail"]) == (404, f"there is no sweep '{sweep.id}'")
    assert get(api, sweep.id).states == {"queued": 6}


def test_sweeps_are_listed_newest_first_with_the_states_of_their_jobs(api: Api) -> None:
    first, second = submit(api, {"recipe.seed": [0, 1]}), submit(api, {"recipe.seed": [0]})
    api.submit()
    api.put_in_state(first.jobs[1].id, "running", attempt=1)
    page = Page[Sweep].model_validate(api.client.get("/v1/sweeps").json())
    assert [(sweep.id, sweep.states) for sweep in page.items] == [
        (second.id, {"queued": 1}),
        (first.id, {"queued": 1, "running": 1}),
    ]
    assert [sweep.ended for sweep in page.items] == [False, False]
    pages = [api.client.get("/v1/sweeps", params={"limit": 1}).json()]
    pages.append(api.client.get("/v1/sweeps", params={"limit": 1, "cursor": pages[0]["next"]}).json())
    assert [page["items"][0]["id"] for page in pages] == [second.id, first.id]


@ON_BOTH
def test_cancelling_a_sweep_cancels_what_has_not_ended(api: Api) -> None:
    sweep = submit(api, {"recipe.seed": [0, 1, 2]})
    running, done, queued = (job.id for job in sweep.jobs)
    api.put_in_state(running, "running", attempt=1)
    api.succeed(done)
    child = api.submit(model=api.row(queued).model_id, start_from=f"{queued}/float")["id"]
    for _ in "12":
        response = api.client.post(f"/v1/sweeps/{sweep.id}/cancel")
        states = [job.state for job in SweepWithJobs.model_validate(response.json()).jobs]
        assert (response.status_code, states) == (200, ["cancelling", "succeeded", "cancelled"])
    assert api.row(child).state == "failed"


def test_a_sweep_may_wait_for_another_job(api: Api) -> None:
    parent = api.submit()["id"]
    sweep = submit(api, {"recipe.seed": [0, 1]}, model=api.row(parent).model_id, start_from=f"{parent}/float")
    ids = [job.id for job in sweep.jobs]
    assert [api.row(job).waits_for for job in ids] == [parent, parent]
    api.succeed(parent, "checkpoints/float.pt")
    assert settle(api.services.database) == ids


@ON_BOTH
def test_the_table_has_figures_and_costs(api: Api) -> None:
    sweep = submit(api, {"recipe.seed": [0, 1, 2, 3]})
    done, bare, failed, queued = (job.id for job in sweep.jobs)
    metrics = {"float": {"accuracy_test": 0.9}, "integerise": {"accuracy_test": 0.875, "loss_test": 0.5}}
    for job, report in ((done, {"cost": COST, "memory": MEMORY, "layers": [{}]}), (bare, {"cost": None})):
        api.put_in_state(job, "running", attempt=2, metrics=metrics)
        api.put_in_state(job, "succeeded")
        folder = api.services.storage.artifacts(job, 2)
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report))
    problem = QuantisationError("layer conv1 cannot be mapped", param="conv1").problem()
    api.put_in_state(failed, "failed", error=problem)
    found = table(api, sweep.id)
    assert (found.id, found.paths) == (sweep.id, ["recipe.seed"])
    assert [row.job for row in found.rows] == [done, bare, failed, queued]
    assert [row.point["recipe.seed"] for row in found.rows] == [0, 1, 2, 3]
    assert [row.state for row in found.rows] == ["succeeded", "succeeded", "failed", "queued"]
    assert [row.figures for row in found.rows] == [metrics, metrics, {}, {}]
    costs = Costs(latency_s=1e-3, energy_j=2e-6, weight_bytes=100, peak_activation_bytes=50, total_bytes=150)
    assert [row.costs for row in found.rows] == [costs, None, None, None]
    assert [row.error for row in found.rows] == [None, None, problem, None]
    (api.services.storage.artifacts(done, 2) / "report.json").unlink()
    assert [row.costs for row in table(api, sweep.id).rows] == [None] * 4


def test_the_schema_is_served(api: Api) -> None:
    schema = api.client.get("/v1/schemas/sweep-spec").json()
    assert schema["required"] == ["job", "grid"]
