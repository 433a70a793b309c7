"""Where the local service is written down."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dianaq.config import LocalService, config_path, load_local, save_local
from dianaq.errors import DianaqError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "dianaq" / "local.json"


def test_round_trip(config: Path) -> None:
    assert load_local() is None
    assert save_local("http://127.0.0.1:1", "first") == config == config_path()
    save_local("http://127.0.0.1:2", "second")
    assert load_local() == LocalService(url="http://127.0.0.1:2", key="second")


def test_only_the_owner_may_read_it(config: Path) -> None:
    save_local("http://127.0.0.1:1", "key")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert list(config.parent.iterdir()) == [config]


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_path() == tmp_path / ".config" / "dianaq" / "local.json"


def test_names_a_damaged_file(config: Path) -> None:
    save_local("http://127.0.0.1:1", "key")
    config.write_text("{}")
    with pytest.raises(DianaqError, match=r"local\.json does not hold"):
        load_local()
