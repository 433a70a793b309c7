"""Every error is a problem document with a request id."""

from __future__ import annotations

import pytest

from dianaq.errors import Problem
from dianaq_service.jobs import service as jobs

from .conftest import Api


@pytest.mark.parametrize(
    ("method", "path", "status", "slug", "param"),
    [
        ("GET", "/nothing", 404, "not-found", None),
        ("GET", "/v1/jobs/", 404, "not-found", None),
        ("PUT", "/v1/jobs", 405, "method-not-allowed", None),
        ("GET", "/v1/jobs?limit=0", 422, "invalid-request", "limit"),
        ("GET", "/v1/jobs?state=asleep", 422, "invalid-request", "state"),
        ("GET", "/v1/jobs/job_x", 404, "not-found", "job_id"),
        ("POST", "/v1/jobs/job_x/cancel", 404, "not-found", "job_id"),
        ("GET", "/v1/jobs/job_x/events", 404, "not-found", "job_id"),
        ("GET", "/v1/jobs/job_x/events/stream", 404, "not-found", "job_id"),
        ("GET", "/v1/jobs/job_x/artifacts", 404, "not-found", "job_id"),
        ("GET", "/v1/jobs/job_x/artifacts/a", 404, "not-found", "job_id"),
        ("GET", "/v1/models/m", 404, "not-found", "model_id"),
        ("DELETE", "/v1/models/m", 404, "not-found", "model_id"),
        ("GET", "/v1/datasets/d", 404, "not-found", "dataset_id"),
        ("DELETE", "/v1/datasets/d", 404, "not-found", "dataset_id"),
        ("POST", "/v1/models", 422, "invalid-request", "name"),
    ],
)
def test_problem(api: Api, method: str, path: str, status: int, slug: str, param: str | None) -> None:
    response = api.client.request(method, path)
    problem = Problem.model_validate(response.json())
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem.status, problem.type) == (status, status, slug)
    assert problem.param == param
    assert problem.request_id == response.headers["X-Request-ID"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer \u00e9"])
def test_without_a_valid_key(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    if header is None:
        del api.client.headers["Authorization"]
    response = api.client.get("/v1/jobs", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["type"] == "unauthorised"


def test_health_and_schema_need_no_key(api: Api) -> None:
    del api.client.headers["Authorization"]
    assert api.client.get("/v1/health").json()["status"] == "ok"
    schema = api.client.get("/v1/schemas/job-spec").json()
    assert {"model", "dataset"} <= set(schema["required"])
    assert "float" in schema["$defs"]["Recipe"]["properties"]
    assert {"layers", "accuracy"} <= set(api.client.get("/v1/schemas/report").json()["required"])
    assert "/v1/jobs/{job_id}/events/stream" in api.client.get("/v1/openapi.json").json()["paths"]


def test_unforeseen_error_says_nothing_about_the_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(jobs, "get", broken)
    response = api.client.get("/v1/jobs/j", headers={"X-Request-ID": "mine-1"})
    problem = Problem.model_validate(response.json())
    assert (response.status_code, problem.type, problem.request_id) == (500, "internal-error", "mine-1")
    assert "secret" not in response.text
    assert "mine-1" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_strange_request_id_is_replaced(api: Api) -> None:
    response = api.client.get("/v1/health", headers={"X-Request-ID": "<script>"})
    assert response.headers["X-Request-ID"].isalnum()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "m"}'])
def test_a_body_that_is_no_job_spec(api: Api, body: bytes) -> None:
    response = api.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert Problem.model_validate(response.json()).type in ("invalid-spec", "invalid-request")
