"""Settings, keys, and what the database does with several processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dianaq.errors import InvalidSpec
from dianaq_service.app import create_app
from dianaq_service.database import Database
from dianaq_service.keys.service import configure, make_key, owner_of
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage


def test_the_environment_makes_the_same_settings(settings: Settings) -> None:
    assert Settings.from_env(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIANAQ_DATA_DIR", ""),
        ("DIANAQ_PORT", "eighty"),
        ("DIANAQ_LEASE_SECONDS", "-1"),
        ("DIANAQ_API_KEY", "guess-me"),
        ("DIANAQ_OWNER", "../alice"),
    ],
)
def test_a_bad_variable_is_named(settings: Settings, name: str, value: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        Settings.from_env(settings.to_env() | {name: value})
    assert caught.value.param == name
    assert name in caught.value.detail


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_no_other_machine_is_served_without_a_configured_key(settings: Settings, host: str) -> None:
    with pytest.raises(InvalidSpec, match="DIANAQ_API_KEY"):
        create_app(replace(settings, host=host, api_key=""))
    create_app(replace(settings, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_none(settings: Settings, host: str) -> None:
    create_app(replace(settings, host=host, api_key=""))


def test_a_configured_key_replaces_the_one_before(settings: Settings) -> None:
    Storage(settings.data_dir).create()
    database = Database(settings.database)
    database.create_tables()
    old, new = make_key(), make_key()
    for key in (old, new):
        configure(database, "alice", key)
    with database.read() as session:
        assert (owner_of(session, old), owner_of(session, new)) == (None, "alice")
    database.close()
    assert old.encode() not in (settings.data_dir / "dianaq.sqlite").read_bytes()
    assert new.encode() not in (settings.data_dir / "dianaq.sqlite").read_bytes()


def test_processes_that_start_together_create_the_tables_once(tmp_path: Path) -> None:
    def start(_: int) -> None:
        database = Database(f"sqlite:///{tmp_path}/d.sqlite")
        database.create_tables()
        database.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))
