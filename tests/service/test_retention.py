"""What expires goes, what is needed stays, and no row is left without its file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import ON_BOTH
from sqlalchemy import func, select

from dianaq_service.database import ArtifactRow, DatasetRow, EventRow, JobRow, ModelRow
from dianaq_service.database.tables import now
from dianaq_service.retention import removal
from dianaq_service.retention.housekeeper import Housekeeper
from dianaq_service.settings import Settings

from .conftest import Api

pytestmark = ON_BOTH

OLD = timedelta(days=1000)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, retention_days_artifacts=10, retention_days_uploads=20)


def keep_house(api: Api, **changes: Any) -> bool:
    settings = replace(api.services.settings, **changes)
    return Housekeeper(settings, api.services.database, api.services.storage).round()


def age(api: Api, row_id: str, table: Any, **times: datetime) -> None:
    with api.services.database.write() as session:
        for name, value in times.items():
            setattr(session.get_one(table, row_id), name, value)


def put(path: Path, *, old: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    if old:
        make_old(path)
    return path


def make_old(path: Path) -> Path:
    os.utime(path, (0, time.time() - OLD.total_seconds()))
    return path


def succeeded(api: Api) -> str:
    """A job with one artifact, which ended long ago."""
    job = str(api.submit()["id"])
    put(api.services.storage.artifacts(job, 1) / "report.json")
    api.succeed(job, "report.json")
    age(api, job, JobRow, finished=now() - OLD)
    return job


def blob(api: Api, upload: str, table: Any, content: bytes) -> Path:
    """The file of an upload whose row is there."""
    sha256 = hashlib.sha256(content).hexdigest()
    with api.services.database.write() as session:
        row = session.get_one(table, upload)
        row.sha256 = sha256
        owner = row.owner
    return put(api.services.storage.blob(owner, sha256))


def count(api: Api, table: Any) -> int:
    with api.services.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_artifacts_expire_and_their_job_stays(api: Api) -> None:
    job = succeeded(api)
    expires = api.client.get(f"/v1/jobs/{job}").json()["expires"]
    assert datetime.fromisoformat(expires) < now()
    assert api.client.get(f"/v1/jobs/{job}/artifacts/report.json").status_code == 200
    assert keep_house(api)
    for path in ("artifacts", "artifacts/report.json"):
        response = api.client.get(f"/v1/jobs/{job}/{path}")
        assert (response.status_code, response.json()["type"]) == (410, "expired")
        assert job in response.json()["detail"]
    assert not (api.services.storage.root / "artifacts" / job).exists()
    spec = {name: api.row(job).spec[name] for name in ("model", "dataset")} | {"start_from": f"{job}/float"}
    response = api.client.post("/v1/jobs", json=spec)
    assert response.status_code == 409
    assert "expired" in response.json()["detail"]
    assert api.client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    assert api.client.get(f"/v1/jobs/{job}/events").json()["items"]
    assert api.client.get(f"/v1/jobs/{job}/artifacts", headers=api.bob).status_code == 404


def test_artifacts_stay_before_their_time_for_ever_if_so_wanted_and_while_a_job_starts_from_them(api: Api) -> None:
    young, old = succeeded(api), succeeded(api)
    age(api, young, JobRow, finished=now() - timedelta(days=9))
    keep_house(api, retention_days_artifacts=0)
    assert api.client.get(f"/v1/jobs/{old}/artifacts/report.json").status_code == 200
    follower = api.submit()["id"]
    spec = api.row(follower).spec | {"start_from": f"{old}/float"}
    age(api, follower, JobRow, spec=spec)
    keep_house(api)
    assert {api.client.get(f"/v1/jobs/{job}/artifacts/report.json").status_code for job in (young, old)} == {200}
    api.put_in_state(follower, "cancelled")
    keep_house(api)
    assert api.client.get(f"/v1/jobs/{old}/artifacts/report.json").status_code == 410


def test_an_upload_goes_long_after_its_last_job_and_never_before(api: Api) -> None:
    model, used, busy = api.add_model(), api.add_model(), api.add_model()
    dataset = api.add_dataset()
    job, running = (api.submit(model=m, dataset=dataset)["id"] for m in (used, busy))
    file = blob(api, model, ModelRow, b"nobody's")
    for upload in (model, used, busy):
        age(api, upload, ModelRow, created=now() - OLD)
    age(api, dataset, DatasetRow, created=now() - OLD)
    api.succeed(job)
    listed = {m["id"]: m["expires"] for m in api.client.get("/v1/models").json()["items"]}
    assert datetime.fromisoformat(listed[model]) < now() < datetime.fromisoformat(listed[used])
    assert listed[busy] is None
    keep_house(api, retention_days_uploads=0)
    assert file.exists()
    keep_house(api)
    assert not file.exists()
    assert [api.client.get(f"/v1/models/{m}").status_code for m in (model, used, busy)] == [404, 200, 200]
    assert api.client.get(f"/v1/datasets/{dataset}").json()["expires"] is None
    age(api, job, JobRow, finished=now() - OLD)
    api.put_in_state(running, "cancelled")
    age(api, running, JobRow, finished=now() - OLD)
    keep_house(api)
    assert [api.client.get(f"/v1/models/{m}").status_code for m in (used, busy)] == [404, 404]
    assert api.client.get(f"/v1/datasets/{dataset}").status_code == 404


def test_a_blob_stays_while_another_upload_of_the_owner_has_its_content(api: Api) -> None:
    model, dataset, others = api.add_model(), api.add_dataset(), api.add_model("bob")
    file = blob(api, model, ModelRow, b"same")
    assert blob(api, dataset, DatasetRow, b"same") == file
    of_bob = blob(api, others, ModelRow, b"same")
    assert api.client.delete(f"/v1/models/{model}").status_code == 204
    assert file.exists()
    assert api.client.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert not file.exists()
    assert of_bob.exists()


def test_what_a_job_needs_cannot_be_deleted(api: Api) -> None:
    model, dataset = api.add_model(), api.add_dataset()
    job = api.submit(model=model, dataset=dataset)["id"]
    for state in ("queued", "running", "cancelling"):
        api.put_in_state(job, state)
        for path in (f"models/{model}", f"datasets/{dataset}"):
            response = api.client.delete(f"/v1/{path}")
            assert response.status_code == 409
            assert job in response.json()["detail"]
        response = api.client.delete(f"/v1/jobs/{job}")
        assert response.status_code == 409
        assert state in response.json()["detail"]
    assert api.row(job).state == "cancelling"


def test_a_deleted_job_leaves_nothing(api: Api) -> None:
    job, other = succeeded(api), succeeded(api)
    storage = api.services.storage
    files = [
        storage.artifacts(job, 1) / "report.json",
        put(storage.log(job, 1)),
        put(storage.work(job, 1) / "x"),
        put(storage.snapshots(job, 1) / "float.pt"),
    ]
    kept = [storage.artifacts(other, 1) / "report.json", put(storage.log(other, 1))]
    assert api.client.delete(f"/v1/jobs/{job}", headers=api.bob).status_code == 404
    assert api.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert not any(file.exists() for file in files)
    assert all(file.exists() for file in kept)
    assert api.client.get(f"/v1/jobs/{job}").status_code == 404
    assert count(api, ArtifactRow) == 1
    with api.services.database.read() as session:
        assert session.scalars(select(EventRow.job_id).distinct()).all() == [other]


def test_a_job_that_another_one_starts_from_is_not_deleted(api: Api) -> None:
    job, follower = succeeded(api), api.submit()["id"]
    age(api, follower, JobRow, spec=api.row(follower).spec | {"start_from": f"{job}/float"})
    response = api.client.delete(f"/v1/jobs/{job}")
    assert response.status_code == 409
    assert follower in response.json()["detail"]
    api.put_in_state(follower, "failed")
    assert api.client.delete(f"/v1/jobs/{job}").status_code == 204


def test_files_without_a_row_go_once_they_are_old(api: Api) -> None:
    storage = api.services.storage
    done, running = succeeded(api), str(api.submit()["id"])
    api.put_in_state(running, "running", attempt=2)
    model = api.add_model()
    kept = [
        blob(api, model, ModelRow, b"known"),
        put(storage.incoming / "young", old=False),
        put(storage.blob("alice", "ab" * 32), old=False),
        make_old(storage.artifacts(done, 1)),
        put(storage.work(running, 2) / "x").parent,
        put(storage.artifacts(running, 2) / "x").parent,
        put(storage.log(running, 1)),
        put(storage.root / "logs" / "api.log"),
    ]
    gone = [
        put(storage.incoming / "old"),
        put(storage.blob("alice", "cd" * 32)),
        put(storage.artifacts(done, 2) / "x").parent,
        put(storage.artifacts("job_unknown", 1) / "x").parent,
        put(storage.work(running, 1) / "x").parent,
        put(storage.work(done, 1) / "x").parent,
        put(storage.log(done, 1)),
        put(storage.log("job_unknown", 3)),
    ]
    for folder in [*kept, *gone]:
        if folder.is_dir():
            make_old(folder)
    days = ("artifacts", "uploads", "incoming", "orphans", "logs")
    keep_house(api, **{f"retention_days_{name}": 0 for name in days})
    assert all(path.exists() for path in [*kept, *gone])
    keep_house(api, retention_days_artifacts=0, retention_days_uploads=0)
    assert [path for path in kept if not path.exists()] == []
    assert [path for path in gone if path.exists()] == []


def test_a_crash_between_row_and_file_leaves_an_orphan_that_goes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job = succeeded(api)
    folder = make_old(api.services.storage.artifacts(job, 1))
    with monkeypatch.context() as patch:
        patch.setattr(removal.shutil, "rmtree", lambda *_, **__: None)
        assert removal.expire_artifacts(api.services.database, api.services.storage, job)
    assert folder.exists()
    assert api.client.get(f"/v1/jobs/{job}/artifacts/report.json").status_code == 410
    keep_house(api)
    assert not folder.exists()


def test_one_process_at_a_time_keeps_house(api: Api) -> None:
    with (api.services.storage.root / "housekeeping.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not keep_house(api)
    assert keep_house(api)
