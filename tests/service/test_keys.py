"""A key is looked up, and then known for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

from dianaq_service.database import ApiKeyRow
from dianaq_service.keys import service
from dianaq_service.keys.service import Known
from dianaq_service.web import deps

from .conftest import Api


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each key that is looked up in the database."""
    keys: list[str] = []
    owner_of: Callable[[Session, str], str | None] = deps.owner_of

    def counting(session: Session, key: str) -> str | None:
        keys.append(key)
        return owner_of(session, key)

    monkeypatch.setattr(deps, "owner_of", counting)
    return keys


def wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a moment pass, for what is known of keys alone."""
    later = time.monotonic() + service.KNOWN_SECONDS
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: later))


def test_a_key_that_was_just_seen_is_not_looked_up(
    api: Api, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "KNOWN_SECONDS", 600.0)
    for _ in range(3):
        assert api.client.get("/v1/jobs").status_code == 200
        assert api.client.get("/v1/jobs", headers=api.bob).status_code == 200
        assert api.client.get("/v1/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401
    # A wrong one is looked up each time: it may be valid by now.
    assert sorted(looked_up, key="wrong".__eq__)[2:] == ["wrong"] * 3
    assert len(looked_up) == 5


def test_each_key_is_its_owners(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "KNOWN_SECONDS", 600.0)
    job = api.submit()["id"]
    for _ in range(2):
        assert api.client.get(f"/v1/jobs/{job}").status_code == 200
        assert api.client.get(f"/v1/jobs/{job}", headers=api.bob).status_code == 404


def test_a_key_that_was_removed_is_refused_a_moment_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.client.get("/v1/jobs").status_code == 200
    with api.services.database.write() as session:
        session.execute(delete(ApiKeyRow))
    wait(monkeypatch)
    assert api.client.get("/v1/jobs").status_code == 401


def test_known_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    known.see("key", "alice")
    assert (known.owner_of("key"), known.owner_of("other")) == ("alice", None)
    wait(monkeypatch)
    assert known.owner_of("key") is None
