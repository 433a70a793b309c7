"""A POST under an idempotency key: done once, whatever the network makes of its answer."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import ON_BOTH
from sqlalchemy import func, select, update

from dianaq.schemas.resources import Job
from dianaq_service import idempotency
from dianaq_service.app import create_app
from dianaq_service.database import AnswerRow, DatasetRow, EventRow, JobRow, ModelRow, SweepRow
from dianaq_service.database.tables import now
from dianaq_service.idempotency import Once, Replay
from dianaq_service.retention.housekeeper import Housekeeper
from dianaq_service.settings import Settings
from dianaq_service.uploads import receive as receiving
from dianaq_service.uploads.inspect import Inspector

from .conftest import DATASET_INFO, MODEL_INFO, Api

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def inspection(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Uploads are what they say; the list tells which were looked into."""
    seen: list[str] = []

    async def inspect(self: Inspector, kind: str, path: Path, refusal: object) -> dict[str, Any]:
        seen.append(kind)
        return (MODEL_INFO if kind == "model" else DATASET_INFO).model_dump(mode="json")

    monkeypatch.setattr(Inspector, "inspect", inspect)
    return seen


def _post(api: Api, path: str, key: str, **options: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key, **options.pop("headers", {})}
    return api.client.post(path, headers=headers, **options)


def _submit(api: Api) -> Callable[[str], httpx.Response]:
    spec = {"model": api.add_model(), "dataset": api.add_dataset()}
    return lambda key: _post(api, "/v1/jobs", key, json=spec)


def _cancel(api: Api) -> Callable[[str], httpx.Response]:
    job = api.submit()["id"]
    return lambda key: _post(api, f"/v1/jobs/{job}/cancel", key)


def _sweep(api: Api) -> Callable[[str], httpx.Response]:
    spec = {
        "job": {"model": api.add_model(), "dataset": api.add_dataset(), "recipe": {"preset": "ptq"}},
        "grid": {"recipe.seed": [0, 1]},
    }
    return lambda key: _post(api, "/v1/sweeps", key, json=spec)


def _cancel_sweep(api: Api) -> Callable[[str], httpx.Response]:
    sweep = _sweep(api)("of-the-sweep").json()["id"]
    return lambda key: _post(api, f"/v1/sweeps/{sweep}/cancel", key)


POSTS: dict[str, Callable[[Api], Callable[[str], httpx.Response]]] = {
    "/v1/models": lambda api: lambda key: _post(api, "/v1/models?name=n", key, content=b"a model"),
    "/v1/datasets": lambda api: lambda key: _post(api, "/v1/datasets?name=n", key, content=b"a dataset"),
    "/v1/jobs": _submit,
    "/v1/jobs/{job_id}/cancel": _cancel,
    "/v1/sweeps": _sweep,
    "/v1/sweeps/{sweep_id}/cancel": _cancel_sweep,
}
"""How to send a request to each POST route, the same one each time it is called."""


def _rows(api: Api) -> list[int]:
    tables = (ModelRow, DatasetRow, JobRow, EventRow, SweepRow)
    with api.services.database.read() as session:
        return [session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


def test_every_post_route_is_tried_here(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    assert set(POSTS) == {path for path, methods in paths.items() if "post" in methods}


@ON_BOTH
@pytest.mark.parametrize("path", POSTS)
def test_is_done_once(api: Api, path: str) -> None:
    send = POSTS[path](api)
    first = send("key-1")
    assert first.is_success, first.text
    assert "Idempotency-Replayed" not in first.headers
    rows = _rows(api)
    again = send("key-1")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert _rows(api) == rows
    # Another key is another thing to be done.
    assert "Idempotency-Replayed" not in send("key-2").headers


def test_an_answer_stays_as_it_was(api: Api) -> None:
    send = _submit(api)
    job = send("k").json()
    api.put_in_state(job["id"], "running", attempt=1)
    assert send("k").json() == job


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/models?name=n", {"content": b"another model"}),
        ("/v1/models?name=m", {"content": b"a model"}),
        ("/v1/datasets?name=n", {"content": b"a model"}),
        ("/v1/jobs", {"json": {"model": "mdl_1", "dataset": "dat_1"}}),
    ],
)
def test_a_key_belongs_to_one_request(api: Api, path: str, options: Any, inspection: list[str]) -> None:
    assert POSTS["/v1/models"](api)("k").status_code == 201
    response = _post(api, path, "k", **options)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (422, "idempotency-key-reused")
    assert (problem["param"], "'k'" in problem["detail"]) == ("Idempotency-Key", True)
    # What is refused is not even looked into, and leaves nothing.
    assert inspection == ["model"]
    assert len(api.files()) == 1


@ON_BOTH
def test_keys_belong_to_an_owner(api: Api) -> None:
    mine = _post(api, "/v1/models?name=n", "k", content=b"a model").json()
    theirs = _post(api, "/v1/models?name=n", "k", content=b"other", headers=api.bob)
    assert theirs.status_code == 201
    assert theirs.json()["id"] != mine["id"]


def test_an_error_does_not_use_a_key_up(api: Api) -> None:
    spec = {"model": api.add_model(), "dataset": "dat_1"}
    assert _post(api, "/v1/jobs", "k", json=spec).status_code == 422
    spec["dataset"] = api.add_dataset()
    assert _post(api, "/v1/jobs", "k", json=spec).status_code == 201


@pytest.mark.parametrize("key", ["", "two words", "x" * 256])
def test_a_key_that_is_none(api: Api, key: str) -> None:
    response = _post(api, "/v1/models?name=n", key, content=b"a model")
    assert (response.status_code, response.json()["param"]) == (422, "Idempotency-Key")


def test_a_request_under_way_turns_away_the_next(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()
    inspect = Inspector.inspect

    async def waiting(self: Inspector, kind: str, path: Path, refusal: Any) -> dict[str, Any]:
        reached.set()
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        return await inspect(self, kind, path, refusal)

    monkeypatch.setattr(Inspector, "inspect", waiting)
    send = POSTS["/v1/models"](api)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, "k")
        assert reached.wait(PATIENCE)
        second = send("k")
        go_on.set()
        assert first.result(PATIENCE).status_code == 201
    assert (second.status_code, second.json()["type"]) == (409, "idempotency-key-in-use")
    assert int(second.headers["Retry-After"]) > 0
    assert send("k").json() == first.result().json()


@pytest.mark.parametrize("how", ["closes", "is silent"])
def test_a_client_that_left_frees_its_key(api: Api, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "is silent":
        monkeypatch.setattr(receiving, "SILENCE_SECONDS", 0.5)
    authorization = api.client.headers["Authorization"]
    head = f"POST /v1/models?name=n HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nIdempotency-Key: k\r\n"
    address = (api.client.base_url.host, api.client.base_url.port)
    with socket.create_connection(address) as connection:
        connection.sendall(f"{head}Content-Length: 100\r\n\r\nhalf".encode())
        _until(lambda: bool(api.services.in_flight._keys))
        if how == "is silent":
            _until(lambda: not api.services.in_flight._keys)
    _until(lambda: not api.services.in_flight._keys)
    assert POSTS["/v1/models"](api)("k").status_code == 201


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_answer_and_what_it_tells_of_are_one(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    send = _submit(api)

    def fails(*_: object) -> None:
        raise OSError("the machine is gone")

    with monkeypatch.context() as broken:
        broken.setattr(idempotency._ADD, "execute", fails)
        assert send("k").status_code == 500
    assert _rows(api)[2:] == [0, 0, 0]
    assert send("k").status_code == 201


@ON_BOTH
def test_of_two_processes_the_second_gives_the_answer_of_the_first(api: Api) -> None:
    database = api.services.database
    answer = Job.model_validate(api.submit())
    first, second = (Once(database, "alice", "k", "POST /v1/jobs", 201) for _ in range(2))
    first.of("body").check()
    second.of("body").check()
    with database.write() as session:
        first.keep(session, answer)

    def late() -> None:
        with database.write() as session:
            session.add(ModelRow(id="mdl_late", owner="alice", name="n", sha256="0" * 64, size=1, info={}))
            session.flush()
            second.keep(session, answer.model_copy(update={"id": "job_other"}))

    with pytest.raises(Replay) as caught:
        late()
    assert (caught.value.status, json.loads(caught.value.body)["id"]) == (201, answer.id)
    with database.read() as session:
        assert session.get(ModelRow, "mdl_late") is None


@ON_BOTH
@pytest.mark.parametrize("path", [path for path in POSTS if "models" not in path and "datasets" not in path])
def test_of_two_at_the_same_time_both_get_the_answer_of_one(api: Api, path: str) -> None:
    send = POSTS[path](api)
    rows = _rows(api)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, ["k"] * 4))
    assert {answer.is_success for answer in answers} == {True}, [answer.text for answer in answers]
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 3
    after = _rows(api)
    assert send("k").json() == answers[0].json()
    assert _rows(api) == after != rows


@ON_BOTH
def test_keys_expire(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    send = POSTS["/v1/models"](api)
    first = send("k").json()
    for other in ("a", "b", "c"):
        send(other)
    with api.services.database.write() as session:
        session.execute(update(AnswerRow).values(created=now() - idempotency.KEEP - timedelta(seconds=1)))
    second = send("k")
    assert second.json()["id"] != first["id"]
    assert send("k").json() == second.json()
    # The others go in the next round of housekeeping.
    monkeypatch.setattr(idempotency, "PORTION", 1)
    Housekeeper(api.services.settings, api.services.database, api.services.storage).round()
    with api.services.database.read() as session:
        assert list(session.scalars(select(AnswerRow.key))) == ["k"]


def test_an_upload_with_a_key_is_still_a_stream(api: Api) -> None:
    data = io.BytesIO(b"x" * 900_000)
    assert _post(api, "/v1/models?name=n", "k", content=iter(lambda: data.read(1000), b"")).status_code == 201
    assert [path.stat().st_size for path in api.files()] == [900_000]
