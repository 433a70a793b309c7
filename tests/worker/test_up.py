"""`dianaq up` as a user runs it: a process, ended by signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from .support import FAKES, all_gone, family, wait_for

_UP = """
import argparse, sys
from dianaq_worker.embedded.command import register
parser = argparse.ArgumentParser()
register(parser.add_subparsers())
args = parser.parse_args(["up", *sys.argv[1:]])
sys.exit(args.run(args))
"""


@dataclass
class Up:
    process: subprocess.Popen[str]
    lines: list[str]
    home: Path

    @property
    def local(self) -> dict[str, str]:
        return dict(json.loads((self.home / "config" / "dianaq" / "local.json").read_text()))


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `dianaq up` with a home of its own, and waits until it says how to stop it."""
    started: list[subprocess.Popen[str]] = []
    paths = {"DIANAQ_HOME": "data", "XDG_CONFIG_HOME": "config"}
    pythonpath = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))
    env = os.environ | {k: str(tmp_path / v) for k, v in paths.items()} | {"PYTHONPATH": pythonpath}

    def run(*arguments: str, ready: bool = True) -> Up:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _UP, *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        lines = []
        while ready:
            line = process.stdout.readline()
            assert line, lines
            lines.append(line)
            if "Ctrl-C" in line:
                break
        return Up(process, lines, tmp_path)

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


def test_it_says_where_it_is_and_ctrl_c_ends_all_of_it(start: Start, tmp_path: Path) -> None:
    up = start()
    local = up.local
    assert local["url"] in up.lines[0]
    assert str(tmp_path / "data") in "".join(up.lines)
    assert (tmp_path / "config" / "dianaq" / "local.json").stat().st_mode & 0o777 == 0o600
    headers = {"Authorization": f"Bearer {local['key']}"}
    assert httpx.get(f"{local['url']}/v1/jobs", headers=headers).status_code == 200
    processes = family(up.process.pid)
    assert len(processes) == 4

    second = start(ready=False)
    output, _ = second.process.communicate(timeout=20)
    assert second.process.returncode == 1
    assert f"process {up.process.pid}" in output
    assert "Traceback" not in output

    up.process.send_signal(signal.SIGINT)
    output, _ = up.process.communicate(timeout=20)
    assert up.process.returncode == 0
    assert "data is kept" in output
    assert "Traceback" not in output
    assert all_gone(processes)

    again = start("--port", _free_port())
    assert again.local["key"] == local["key"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_just_as_cleanly(start: Start, number: signal.Signals) -> None:
    up = start()
    processes = family(up.process.pid)
    up.process.send_signal(number)
    up.process.communicate(timeout=20)
    assert up.process.returncode == 0
    assert all_gone(processes)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
def test_nothing_survives_when_it_is_killed(start: Start) -> None:
    up = start()
    processes = family(up.process.pid)
    up.process.kill()
    up.process.communicate(timeout=20)
    wait_for(lambda: all_gone(processes))


def test_it_ends_with_an_error_when_a_part_dies(start: Start) -> None:
    up = start()
    processes = family(up.process.pid)
    worker = next(p for p in processes if "dianaq_worker" in psutil.Process(p.pid).cmdline())
    worker.kill()
    output, _ = up.process.communicate(timeout=20)
    assert up.process.returncode == 1
    assert "worker" in output
    assert "SIGKILL" in output
    assert all_gone(processes)


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        up = start("--port", port, ready=False)
        output, _ = up.process.communicate(timeout=20)
    assert up.process.returncode == 1
    assert port in output


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])
