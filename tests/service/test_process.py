"""The API as a process of its own: what it loads, what it weighs, and how it refuses to start."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dianaq_service.settings import Settings

_HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "scipy")


def _python(*arguments: str, settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=os.environ | settings.to_env(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_application_loads_nothing_heavy(settings: Settings) -> None:
    code = f"""
import asyncio, pathlib, sys
from dianaq_service.app import create_app
from dianaq_service.settings import Settings

async def start():
    app = create_app(Settings.from_env())
    async with app.router.lifespan_context(app):
        assert app.openapi()["paths"]

asyncio.run(start())
loaded = [name for name in {_HEAVY} if name in sys.modules]
assert not loaded, loaded
# VmHWM and not ru_maxrss: the latter starts with what the parent had when it forked.
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) // 1024
assert peak < 200, f"{{peak}} MB"
"""
    result = _python("-c", code, settings=settings)
    assert result.returncode == 0, result.stderr


def test_an_open_address_without_a_key_is_refused(settings: Settings) -> None:
    result = _python("-m", "dianaq_service", settings=replace(settings, host="0.0.0.0", api_key=""))
    assert result.returncode == 2
    assert "DIANAQ_API_KEY" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_new_key_for_another_owner(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = _python("-m", "dianaq_service.keys", "carol", settings=settings)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("dq_")
    assert _python("-m", "dianaq_service.keys", "not ok", settings=settings).returncode == 2


@pytest.mark.parametrize("command", ["dianaq_service", "dianaq_worker"])
def test_a_database_that_cannot_be_reached_by_its_url_is_said_in_a_sentence(settings: Settings, command: str) -> None:
    result = _python("-m", command, settings=replace(settings, database_url="mysql://u:secret@host/name"))
    assert result.returncode == 2
    assert "DIANAQ_DATABASE_URL takes" in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr
