"""Uploading real files: kept whole, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest
from databases import ON_BOTH
from onnx import TensorProto, helper, numpy_helper
from sqlalchemy import func, select

from dianaq.errors import Problem
from dianaq.schemas.resources import Dataset, Model, WeightsInfo
from dianaq_service.database import DatasetRow, ModelRow
from dianaq_service.uploads.inspect import Inspector

from .conftest import Api


@pytest.fixture(scope="module")
def onnx_file() -> bytes:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    dense = numpy_helper.from_array(np.ones((4, 10), np.float32), "d")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "d"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [weight, dense],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def npz_file() -> bytes:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (20, 8, 8, 3)).astype(np.uint8)
    with io.BytesIO() as file:
        np.savez(file, x_train=images, y_train=np.arange(20) % 10)
        return file.getvalue()


def _rows(api: Api) -> int:
    with api.services.database.read() as session:
        return sum(session.scalar(select(func.count()).select_from(t)) or 0 for t in (ModelRow, DatasetRow))


def _refused(api: Api, path: str, content: bytes | Iterator[bytes], status: int, slug: str) -> Problem:
    """The upload is refused like this, and nothing of it is kept."""
    response = api.client.post(path, params={"name": "n"}, content=content)
    problem = Problem.model_validate(response.json())
    assert (response.status_code, problem.type) == (status, slug), problem
    assert _rows(api) == 0
    assert api.files() == []
    return problem


def test_model(api: Api, onnx_file: bytes) -> None:
    response = api.client.post("/v1/models", params={"name": "net.onnx"}, content=onnx_file)
    assert response.status_code == 201, response.text
    model = Model.model_validate(response.json())
    assert (model.name, model.size) == ("net.onnx", len(onnx_file))
    assert model.sha256 == hashlib.sha256(onnx_file).hexdigest()
    assert model.info.format == "onnx"
    assert model.info.input.shape == (3, 8, 8)
    assert api.services.storage.blob("alice", model.sha256).read_bytes() == onnx_file
    assert Model.model_validate(api.client.get(f"/v1/models/{model.id}").json()) == model
    assert [m["id"] for m in api.client.get("/v1/models").json()["items"]] == [model.id]
    assert api.client.get(f"/v1/models/{model.id}", headers=api.bob).status_code == 404
    assert api.client.delete(f"/v1/models/{model.id}", headers=api.bob).status_code == 404
    assert api.client.get("/v1/models", headers=api.bob).json()["items"] == []


@ON_BOTH
def test_the_same_bytes_are_kept_once_per_owner(api: Api, npz_file: bytes) -> None:
    def upload(**headers: str) -> Dataset:
        response = api.client.post("/v1/datasets?name=d", content=npz_file, headers=headers)
        return Dataset.model_validate(response.json())

    first, second, other = upload(), upload(), upload(**api.bob)
    assert first.id != second.id
    assert first.info.splits["train"].samples == 20
    assert len(api.files()) == 2
    assert api.client.delete(f"/v1/datasets/{first.id}").status_code == 204
    assert len(api.files()) == 2
    assert api.client.delete(f"/v1/datasets/{second.id}").status_code == 204
    assert api.files() == [api.services.storage.blob("bob", other.sha256)]
    assert api.client.get(f"/v1/datasets/{second.id}").status_code == 404


@ON_BOTH
@pytest.mark.parametrize("state", ["queued", "running", "cancelling"])
def test_what_an_unfinished_job_needs_stays(api: Api, state: str) -> None:
    job = api.submit()
    api.put_in_state(job["id"], state)
    for path in (f"/v1/models/{job['spec']['model']}", f"/v1/datasets/{job['spec']['dataset']}"):
        response = api.client.delete(path)
        assert (response.status_code, response.json()["type"]) == (409, "conflict")
        assert job["id"] in response.json()["detail"]
    api.put_in_state(job["id"], "cancelled")
    for path in (f"/v1/models/{job['spec']['model']}", f"/v1/datasets/{job['spec']['dataset']}"):
        assert api.client.delete(path).status_code == 204
    # The job itself remains, with the ids of what it was made from.
    assert api.client.get(f"/v1/jobs/{job['id']}").json()["spec"] == job["spec"]


def safetensors(dtype: str = "F32", length: int | None = None) -> bytes:
    """A file of one tensor `w` of zeros, eight bytes long."""
    entry = {"dtype": dtype, "shape": [8 // (4 if dtype == "F32" else 2)], "data_offsets": [0, 8]}
    header = json.dumps({"w": entry}).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + b"\x00" * 8


def state_dict(compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch.save writes it, of two storages."""
    pickle = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nctorch\nFloatStorage\n."
    members = {"net/data.pkl": pickle, "net/data/0": b"\x00" * 16, "net/data/1": b"\x00" * 4, "net/version": b"3"}
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return file.getvalue()


@pytest.mark.parametrize(
    ("content", "tensors"), [(safetensors(), 1), (state_dict(), 2)], ids=["safetensors", "pytorch"]
)
def test_weights(api: Api, content: bytes, tensors: int) -> None:
    response = api.client.post("/v1/models", params={"name": "net.onnx"}, content=content)
    assert response.status_code == 201, response.text
    model = Model.model_validate(response.json())
    assert isinstance(model.info, WeightsInfo)
    assert model.info.tensors == tensors
    assert Model.model_validate(api.client.get(f"/v1/models/{model.id}").json()) == model
    assert api.services.storage.blob("alice", model.sha256).read_bytes() == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (state_dict(zipfile.ZIP_DEFLATED), "is compressed"),
        (state_dict()[:-30], "damaged or truncated"),
        (safetensors(length=2**39), "header has 549,755,813,888 bytes"),
        (safetensors("F16"), "'w' is 'F16'"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "is a pickle"),
        (b"\x1c\0\0\0TFL3\x14\0\x20\0", "tf2onnx.convert --tflite"),
    ],
)
def test_bad_weights_leave_nothing(api: Api, content: bytes, words: str) -> None:
    assert words in _refused(api, "/v1/models", content, 422, "invalid-model").detail


@pytest.mark.parametrize("garbage", [b"garbage", b"PK\x03\x04", b"\x00" * 5000])
@pytest.mark.parametrize(("path", "slug"), [("/v1/models", "invalid-model"), ("/v1/datasets", "invalid-dataset")])
def test_garbage_leaves_nothing(api: Api, path: str, slug: str, garbage: bytes) -> None:
    _refused(api, path, garbage, 422, slug)


def test_truncated_files_leave_nothing(api: Api, onnx_file: bytes, npz_file: bytes) -> None:
    _refused(api, "/v1/models", onnx_file[: len(onnx_file) // 2], 422, "invalid-model")
    _refused(api, "/v1/datasets", npz_file[: len(npz_file) // 2], 422, "invalid-dataset")


def test_an_empty_body_leaves_nothing(api: Api) -> None:
    _refused(api, "/v1/models", b"", 422, "invalid-request")


def test_too_large_by_announcement_and_by_count(api: Api) -> None:
    limit = api.services.settings.max_upload_bytes
    problem = _refused(api, "/v1/datasets", b"x" * (limit + 1), 413, "too-large")
    assert str(limit) in problem.detail
    # An iterator is sent in chunks, without a Content-Length.
    _refused(api, "/v1/datasets", iter([b"x" * limit, b"x"]), 413, "too-large")


def test_inspection_that_takes_too_long_or_too_much(api: Api, npz_file: bytes) -> None:
    def limit(**values: float) -> None:
        settings = replace(api.services.settings, **values)  # type: ignore[arg-type]
        object.__setattr__(api.services, "inspector", Inspector(settings))

    limit(inspection_seconds=0.01)
    assert "seconds" in _refused(api, "/v1/datasets", npz_file, 422, "invalid-dataset").detail
    limit(inspection_memory_bytes=60 * 1024**2)
    assert "memory" in _refused(api, "/v1/datasets", npz_file, 422, "invalid-dataset").detail


@pytest.mark.parametrize("name", ["", "n" * 201])
def test_the_name_has_bounds(api: Api, name: str) -> None:
    response = api.client.post("/v1/models", params={"name": name}, content=b"x")
    assert (response.status_code, response.json()["param"]) == (422, "name")
