"""A fake service, and a client of it; no test sees the service of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dianaq import Client

from .fake_service import KEY, FakeService


@pytest.fixture(autouse=True)
def no_local_service(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    for name in ("DIANAQ_URL", "DIANAQ_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("dianaq._follow.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("dianaq._retry.PAUSE_SECONDS", 0.01)


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as running:
        yield running


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client(service.url, KEY, timeout=10) as found:
        yield found


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x09 like a model" * 100_000)
    return path


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    path.write_bytes(b"PK\x03\x04 like a zip")
    return path
