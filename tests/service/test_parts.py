"""Networks that are refused as a whole are kept; jobs take parts of them, which are looked into before they queue."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dianaq.errors import Problem
from dianaq.schemas.resources import Job, Model, ModelInfo
from dianaq_service.uploads.inspect import Inspector

from .conftest import Api


@pytest.fixture(scope="module")
def two_headed() -> bytes:
    """(N, 3, 8, 8) to ten classes, and to four values by an operator that no core computes."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (4, 3, 3, 3)), ("d", (4, 10)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "d"], ["classes"], "fc"),
        helper.make_node("Sin", ["f"], ["angles"], "sin"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("classes", "angles")],
        weights,
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def upload(api: Api, content: bytes) -> Model:
    response = api.client.post("/v1/models?name=net.onnx", content=content)
    assert response.status_code == 201, response.text
    return Model.model_validate(response.json())


def submit(api: Api, model: Model, **spec: Any) -> Any:
    body = {"model": model.id, "dataset": api.add_dataset(), **spec}
    response = api.client.post("/v1/jobs", json=body)
    return (Job if response.status_code == 201 else Problem).model_validate(response.json())


class Counted:
    """How often files were looked into."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        inspect = Inspector.inspect

        async def counting(inspector: Inspector, *arguments: Any) -> dict[str, Any]:
            self.calls += 1
            return await inspect(inspector, *arguments)

        monkeypatch.setattr(Inspector, "inspect", counting)


def test_a_part_of_a_network_that_is_refused(api: Api, two_headed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    model = upload(api, two_headed)
    assert isinstance(model.info, ModelInfo)
    assert model.info.refusal is not None
    assert "exactly one output" in model.info.refusal.detail
    refused = submit(api, model)
    assert (refused.type, refused.detail) == ("invalid-model", model.info.refusal.detail)
    counted = Counted(monkeypatch)
    for _ in range(2):
        job = submit(api, model, part={"to": "classes"})
        assert (job.state, job.spec.part.to) == ("queued", "classes")
        assert api.row(job.id).spec["part"] == {"from": None, "to": "classes"}
    assert counted.calls == 1
    assert submit(api, upload(api, two_headed), part={"to": "classes"}).state == "queued"
    assert counted.calls == 2  # the upload: the part of the same bytes is known


def test_a_part_is_checked_before_it_queues(api: Api, two_headed: bytes) -> None:
    model = upload(api, two_headed)
    for part, type, words in (
        ({"to": "class"}, "invalid-spec", "did you mean 'classes'"),
        ({"to": "--from=x"}, "invalid-spec", "is no tensor"),
        ({"to": "😀 ümläut"}, "invalid-spec", "is no tensor"),
        ({"from": "c", "to": "classes"}, "invalid-dataset", "(4, 8, 8)"),
        ({"to": "angles"}, "unsupported-operator", "Sin"),
        ({"to": "c"}, "invalid-model", "classification needs an output"),
        ({}, "invalid-spec", "neither from nor to"),
    ):
        problem = submit(api, model, part=part)
        assert (problem.type, problem.status) == (type, 422)
        assert words in problem.detail
    refused = submit(api, model, part={"to": "fc"}, mapping={"layers": {"sin": "digital"}})
    assert "It has 2 layers" in refused.detail
    assert api.client.get("/v1/jobs").json()["items"] == []


def test_names_that_are_no_text(api: Api, two_headed: bytes) -> None:
    body = f'{{"model": "{upload(api, two_headed).id}", "dataset": "d", "part": {{"to": "\\ud800"}}}}'
    response = api.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422


def test_another_owners_network_has_no_parts(api: Api, two_headed: bytes) -> None:
    model = upload(api, two_headed)
    body = {"model": model.id, "dataset": api.add_dataset("bob"), "part": {"to": "classes"}}
    response = api.client.post("/v1/jobs", json=body, headers=api.bob)
    assert response.status_code == 422
    assert f"there is no model '{model.id}'" in response.json()["detail"]


def test_weights_have_no_parts(api: Api) -> None:
    body = {"model": api.add_weights(), "dataset": api.add_dataset(), "part": {"to": "classes"}}
    assert "holds weights" in api.client.post("/v1/jobs", json=body).json()["detail"]


def test_a_sweep_over_parts(api: Api, two_headed: bytes) -> None:
    job = {"model": upload(api, two_headed).id, "dataset": api.add_dataset()}
    grid = {"part.to": ["classes", "fc"]}
    response = api.client.post("/v1/sweeps", json={"job": job, "grid": grid})
    assert response.status_code == 201, response.text
    assert response.json()["states"] == {"queued": 2}
    response = api.client.post("/v1/sweeps", json={"job": job, "grid": {"part.to": ["classes", "angles"]}})
    assert (response.status_code, response.json()["type"]) == (422, "unsupported-operator")


def test_a_job_goes_on_from_one_of_the_same_part(api: Api, two_headed: bytes) -> None:
    model = upload(api, two_headed)
    parent = submit(api, model, part={"to": "classes"})
    child = {"start_from": f"{parent.id}/float"}
    assert submit(api, model, part={"to": "classes"}, **child).waits_for == parent.id
    other = submit(api, model, part={"to": "fc"}, **child)
    assert (other.type, other.param) == ("invalid-spec", "part")
    assert "is of the part to 'classes'" in other.detail


def test_a_network_with_an_unsupported_operator_is_kept(api: Api, two_headed: bytes) -> None:
    whole = onnx.load(io.BytesIO(two_headed))
    del whole.graph.output[0]
    model = upload(api, whole.SerializeToString())
    problem = submit(api, model)
    assert problem.type == "unsupported-operator"
    assert "'sin'" in problem.detail
    assert "--to TENSOR" in problem.detail


def test_a_damaged_network_is_not_kept(api: Api, two_headed: bytes) -> None:
    damaged = onnx.load(io.BytesIO(two_headed))
    damaged.graph.initializer[0].raw_data = np.full((4, 3, 3, 3), np.nan, np.float32).tobytes()
    response = api.client.post("/v1/models?name=net.onnx", content=damaged.SerializeToString())
    assert (response.status_code, response.json()["type"]) == (422, "invalid-model")
    assert api.files() == []
