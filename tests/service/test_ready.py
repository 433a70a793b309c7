"""`/readyz` names what is away; `/v1/health` does not mind."""

from __future__ import annotations

import threading

import pytest

from dianaq_service.web import ready

from .conftest import Api


def test_the_part_that_is_away_is_named(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    response = api.client.get("/readyz", headers={"Authorization": ""})
    assert (response.status_code, response.json()["param"]) == (503, "broker")
    assert "store" not in response.json()["detail"]
    monkeypatch.setattr(type(api.services.queue), "waiting", lambda _: 0)
    assert api.client.get("/readyz").json() == {"database": "ok", "broker": "ok", "store": "ok"}
    api.services.storage.incoming.rmdir()
    response = api.client.get("/readyz")
    assert (response.status_code, response.json()["param"]) == (503, "store")
    assert api.client.get("/v1/health").status_code == 200
    api.services.storage.incoming.mkdir()
    assert api.client.get("/readyz").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(type(api.services.database), "read", _broken)
        response = api.client.get("/readyz")
    assert (response.status_code, response.json()["param"]) == (503, "database")


def _broken(_: object) -> None:
    raise OSError("away")


def test_a_part_that_hangs_is_away_and_asked_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, asked = threading.Event(), []

    def hang(_: object) -> int:
        asked.append(1)
        go_on.wait()
        return 0

    monkeypatch.setattr(ready, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(type(api.services.queue), "waiting", hang)
    try:
        for _ in range(3):
            response = api.client.get("/readyz")
            assert (response.status_code, response.json()["param"]) == (503, "broker")
        assert len(asked) == 1
    finally:
        go_on.set()
