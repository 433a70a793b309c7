"""Listing and downloading what a job left."""

from __future__ import annotations

import hashlib

import pytest

from dianaq.schemas.resources import Artifact
from dianaq_service.artifacts import repository

from .conftest import Api


@pytest.fixture
def job(api: Api) -> str:
    job = str(api.submit()["id"])
    folder = api.services.storage.artifacts(job, 2)
    (folder / "htvm").mkdir(parents=True)
    (folder / "htvm" / "model.onnx").write_bytes(b"onnx")
    (folder / "report.json").write_bytes(b"{}")
    api.put_in_state(job, "succeeded", attempt=2)
    with api.services.database.write() as session:
        repository.add(session, job, repository.scan(folder))
    return job


def test_listing_and_download(api: Api, job: str) -> None:
    listed = [Artifact.model_validate(a) for a in api.client.get(f"/v1/jobs/{job}/artifacts").json()]
    assert [a.path for a in listed] == ["htvm/model.onnx", "report.json"]
    for artifact in listed:
        response = api.client.get(f"/v1/jobs/{job}/artifacts/{artifact.path}")
        assert len(response.content) == artifact.size
        assert hashlib.sha256(response.content).hexdigest() == artifact.sha256
        assert response.headers["ETag"] == f'"{artifact.sha256}"'


def test_a_page_is_handed_out_as_a_file_that_no_browser_runs(api: Api) -> None:
    job = str(api.submit()["id"])
    folder = api.services.storage.artifacts(job, 1)
    folder.mkdir(parents=True)
    (folder / "report.html").write_bytes(b"<script>alert(1)</script>")
    api.put_in_state(job, "succeeded", attempt=1)
    with api.services.database.write() as session:
        repository.add(session, job, repository.scan(folder))
    headers = api.client.get(f"/v1/jobs/{job}/artifacts/report.html").headers
    assert headers["Content-Disposition"] == 'attachment; filename="report.html"'
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


def test_a_job_that_has_not_ended_has_none(api: Api) -> None:
    job = api.submit()["id"]
    assert api.client.get(f"/v1/jobs/{job}/artifacts").json() == []
    response = api.client.get(f"/v1/jobs/{job}/artifacts/report.json")
    assert response.status_code == 404
    assert "queued" in response.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["..%2F..%2F..%2Fdianaq.sqlite", "%2e%2e/%2e%2e/dianaq.sqlite", "%2Fetc%2Fpasswd", "htvm", "htvm%00", "x"],
)
def test_no_path_leads_elsewhere(api: Api, job: str, path: str) -> None:
    response = api.client.get(f"/v1/jobs/{job}/artifacts/{path}")
    assert response.status_code == 404
    assert b"SQLite" not in response.content
