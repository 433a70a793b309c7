"""A full disk: refused in plain words, nothing half-written, and all is well once there is room."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from dianaq.errors import InvalidModel, Problem
from dianaq_service import disk
from dianaq_service.settings import Settings

from .conftest import Api


@pytest.fixture
def settings(settings: Settings, small_disk: Path) -> Settings:
    return replace(settings, data_dir=small_disk / "data", min_free_bytes=0, max_upload_bytes=100_000_000)


def fill(folder: Path) -> Path:
    """Take all the room that there is."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return path


def chunks(count: int) -> Iterator[bytes]:
    """A body whose size is not announced."""
    for _ in range(count):
        yield bytes(1_000_000)


def test_an_upload_that_fills_the_disk_leaves_nothing(api: Api) -> None:
    response = api.client.post("/v1/models", params={"name": "n"}, content=chunks(20))
    problem = Problem.model_validate(response.json())
    assert (response.status_code, problem.status, problem.type) == (507, 507, "insufficient-storage")
    assert problem.request_id == response.headers["X-Request-ID"]
    assert api.files() == []
    assert api.client.get("/v1/models").json()["items"] == []


def test_an_upload_that_cannot_fit_is_refused_by_its_announced_size(api: Api) -> None:
    response = api.client.post("/v1/models", params={"name": "n"}, content=bytes(20_000_000))
    assert response.status_code == 507
    assert "20,000,000" in response.json()["detail"]
    assert str(api.services.storage.root) not in response.text


def test_the_api_goes_on_when_the_database_finds_no_room_and_recovers(api: Api, small_disk: Path) -> None:
    body = {"model": api.add_model(), "dataset": api.add_dataset()}
    filler = fill(small_disk)
    answers = [api.client.post("/v1/jobs", json=body) for _ in range(3)]
    # The log of the database may have a page left.
    full = [a for a in answers if a.status_code != 201]
    assert full
    assert {(a.status_code, a.json()["type"]) for a in full} == {(507, "insufficient-storage")}
    assert api.client.get("/v1/health").status_code == 200
    before = len(api.client.get("/v1/jobs").json()["items"])
    assert before == len(answers) - len(full)
    filler.unlink()
    assert api.client.post("/v1/jobs", json=body).status_code == 201
    assert len(api.client.get("/v1/jobs").json()["items"]) == before + 1


def test_the_floor_is_kept_free(small_disk: Path) -> None:
    room = disk.free(small_disk)
    disk.check_job(small_disk, room)
    disk.check_upload(small_disk, room - 10, 10)
    with pytest.raises(disk.DiskFull, match=f"{room:,}") as caught:
        disk.check_job(small_disk, room + 1)
    assert caught.value.param == str(small_disk)
    with pytest.raises(disk.InsufficientStorage, match="room for 10"):
        disk.check_upload(small_disk, room - 10, 11)


def test_what_says_that_a_disk_is_full(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, (small_disk / "x").open("wb") as file:
        file.write(bytes(16 * 1024**2))
    assert disk.is_full(caught.value)
    connection = sqlite3.connect(small_disk / "d.sqlite")
    with pytest.raises(sqlite3.OperationalError) as of_sqlite:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert disk.is_full(OperationalError("INSERT", {}, of_sqlite.value))
    wrapped = InvalidModel("cannot be read")
    wrapped.__context__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/data/f")
    assert disk.is_full(wrapped)
    assert disk.path_of(wrapped) == "/data/f"
    for other in (None, OSError(errno.EACCES, "no"), sqlite3.OperationalError("locked"), ValueError("disk full")):
        assert not disk.is_full(other)
