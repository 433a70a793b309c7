"""The GPUs of a machine, and a process for each of them. `nvidia-smi` and the supervisors are scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dianaq.errors import InvalidSpec
from dianaq_service.settings import Settings
from dianaq_worker.places import find_places

from .support import all_gone, wait_for

TWO = """GPU 0: NVIDIA H200 (UUID: GPU-aaaaaaaa-0000-0000-0000-000000000000)
GPU 1: NVIDIA H200 (UUID: GPU-bbbbbbbb-0000-0000-0000-000000000000)
"""
A, B = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "ab")
SPLIT = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaaaaaa-0000-0000-0000-000000000000)
  MIG 1g.5gb      Device  0: (UUID: MIG-11111111-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  1: (UUID: MIG-22222222-0000-0000-0000-000000000000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbbbbbb-0000-0000-0000-000000000000)
"""
PARTS = [f"MIG-{digit * 8}-0000-0000-0000-000000000000" for digit in "12"]


class Machine:
    """One whose `nvidia-smi` says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "nvidia-smi"
        self.environ: dict[str, str] = {}

    def lists(self, text: str, code: int = 0) -> None:
        self._program.write_text(f'#!/bin/sh\n[ "$1" = -L ] || exit 9\ncat <<END\n{text}END\nexit {code}\n')
        self._program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("CUDA_VISIBLE_DEVICES", "DIANAQ_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return Machine(folder)


def gpus(settings: Settings, machine: Machine) -> list[str]:
    places = find_places(settings, machine.environ)
    return [place.env["CUDA_VISIBLE_DEVICES"] for place in places if place.kind == "gpu"]


def test_without_gpus_there_is_one_place(settings: Settings, machine: Machine) -> None:
    (place,) = find_places(settings, machine.environ)
    assert (place.kind, place.env) == ("cpu", {"CUDA_VISIBLE_DEVICES": "", "DIANAQ_DEVICE": "cpu"})
    assert len(find_places(replace(settings, cpu_workers=3), machine.environ)) == 3


def test_each_gpu_is_a_place_that_sees_no_other(settings: Settings, machine: Machine) -> None:
    machine.lists(TWO)
    places = find_places(settings, machine.environ)
    assert [place.kind for place in places] == ["gpu", "gpu"]
    assert [place.env["CUDA_VISIBLE_DEVICES"] for place in places] == [A, B]
    assert {place.env["DIANAQ_DEVICE"] for place in places} == {"cuda:0"}


def test_cpus_beside_gpus_are_asked_for(settings: Settings, machine: Machine) -> None:
    machine.lists(TWO)
    places = find_places(replace(settings, cpu_workers=2), machine.environ)
    assert [place.kind for place in places] == ["gpu", "gpu", "cpu", "cpu"]
    assert len({place.name for place in places}) == 4


def test_the_parts_of_a_split_gpu_are_places(settings: Settings, machine: Machine) -> None:
    machine.lists(SPLIT)
    assert gpus(settings, machine) == [*PARTS, B]


@pytest.mark.parametrize(
    ("wanted", "environ", "found"),
    [
        ("none", {}, []),
        ("0,1", {}, ["0", "1"]),
        (f" {B} ", {}, [B]),
        ("auto", {"CUDA_VISIBLE_DEVICES": "1"}, ["1"]),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, []),
        ("auto", {"DIANAQ_DEVICE": "cpu"}, []),
        ("auto", {"DIANAQ_DEVICE": "cuda:1"}, [B]),
        ("auto", {"DIANAQ_DEVICE": "cuda"}, [A, B]),
    ],
)
def test_which_gpus_are_served(
    settings: Settings, machine: Machine, wanted: str, environ: dict[str, str], found: list[str]
) -> None:
    machine.lists(TWO)
    machine.environ.update(environ)
    assert gpus(replace(settings, gpus=wanted), machine) == found


def test_several_jobs_share_a_gpu_by_the_memory_of_each(settings: Settings, machine: Machine) -> None:
    machine.lists(TWO)
    machine.environ["DIANAQ_GPU_MEMORY_GB"] = "8"
    places = find_places(replace(settings, gpu_jobs=3), machine.environ)
    assert [place.env["CUDA_VISIBLE_DEVICES"] for place in places] == [A, A, A, B, B, B]
    assert len({place.name for place in places}) == 6


@pytest.mark.parametrize(("jobs", "param"), [(0, "DIANAQ_GPU_JOBS"), (2, "DIANAQ_GPU_MEMORY_GB")])
def test_jobs_that_cannot_share_a_gpu(settings: Settings, machine: Machine, jobs: int, param: str) -> None:
    machine.lists(TWO)
    with pytest.raises(InvalidSpec, match=str(jobs)) as caught:
        find_places(replace(settings, gpu_jobs=jobs), machine.environ)
    assert caught.value.param == param
    assert [place.kind for place in find_places(replace(settings, gpu_jobs=jobs, gpus="none"), machine.environ)] == [
        "cpu"
    ]


@pytest.mark.parametrize("wanted", ["all", "0,x", "0,0", "-1", "0,"])
def test_gpus_that_cannot_be_meant(settings: Settings, machine: Machine, wanted: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        find_places(replace(settings, gpus=wanted), machine.environ)
    assert caught.value.param == "DIANAQ_GPUS"
    assert repr(wanted) in caught.value.detail


def test_a_gpu_that_is_not_there(settings: Settings, machine: Machine) -> None:
    machine.lists(TWO)
    with pytest.raises(InvalidSpec, match="2 GPUs"):
        find_places(settings, {"DIANAQ_DEVICE": "cuda:2"})


def test_a_driver_that_does_not_answer_leaves_the_cpu(settings: Settings, machine: Machine) -> None:
    machine.lists(TWO, code=9)
    assert [place.kind for place in find_places(settings, machine.environ)] == ["cpu"]


CREW = """
import os, sys
from dianaq_service.settings import Settings
from dianaq_worker import crew
from dianaq_worker.places import find_places
crew.FIRST_PAUSE_SECONDS = 0.1
places = find_places(Settings.from_env(), os.environ)
sys.exit(crew.Crew(places, (sys.executable, sys.argv[1], sys.argv[2])).run())
"""

MEMBER = """
import json, os, signal, sys, time
folder, kind = sys.argv[1:]
record = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "DIANAQ_DEVICE")} | {"kind": kind}
def stop(*_):
    open(f"{folder}/{os.getpid()}.stopped", "w").close()
    sys.exit(int(os.environ.get("MEMBER_CODE", "0")))
signal.signal(signal.SIGTERM, stop)
with open(f"{folder}/{os.getpid()}.new", "w") as file:
    json.dump(record, file)
os.rename(file.name, f"{folder}/{os.getpid()}.json")
while True:
    time.sleep(1)
"""


class RunningCrew:
    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder / "records"
        self._folder.mkdir()
        (folder / "crew.py").write_text(CREW)
        (folder / "member.py").write_text(MEMBER)
        command = [sys.executable, str(folder / "crew.py"), str(folder / "member.py"), str(self._folder)]
        self.process = subprocess.Popen(command, env=os.environ | env, stderr=subprocess.DEVNULL)

    def members(self) -> dict[int, dict[str, str]]:
        """What each process was given, of all that were ever started."""
        return {int(path.stem): json.loads(path.read_text()) for path in self._folder.glob("*.json")}

    def stopped(self) -> set[int]:
        return {int(path.stem) for path in self._folder.glob("*.stopped")}

    def given(self) -> list[str]:
        return sorted(record["CUDA_VISIBLE_DEVICES"] for record in self.members().values())


@pytest.fixture
def crew(tmp_path: Path, settings: Settings, machine: Machine) -> Iterator[RunningCrew]:
    machine.lists(TWO)
    crew = RunningCrew(tmp_path, replace(settings, cpu_workers=1).to_env())
    yield crew
    if crew.process.poll() is None:
        crew.process.kill()
    crew.process.wait()


def test_each_supervisor_has_a_place_of_its_own(crew: RunningCrew) -> None:
    wait_for(lambda: len(crew.members()) == 3)
    assert crew.given() == ["", A, B]
    assert sorted(record["kind"] for record in crew.members().values()) == ["cpu", "gpu", "gpu"]
    assert {record["DIANAQ_DEVICE"] for record in crew.members().values()} == {"cpu", "cuda:0"}


def test_one_that_dies_is_started_again_in_its_place(crew: RunningCrew) -> None:
    wait_for(lambda: len(crew.members()) == 3)
    (victim,) = (pid for pid, record in crew.members().items() if record["CUDA_VISIBLE_DEVICES"] == A)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(crew.members()) == 4)
    assert crew.given() == ["", A, A, B]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_are_asked_to_stop_and_waited_for(crew: RunningCrew, number: signal.Signals) -> None:
    wait_for(lambda: len(crew.members()) == 3)
    crew.process.send_signal(number)
    assert crew.process.wait(20) == 0
    assert crew.stopped() == set(crew.members())


def test_none_survives_the_crew(crew: RunningCrew) -> None:
    wait_for(lambda: len(crew.members()) == 3)
    processes = [psutil.Process(pid) for pid in crew.members()]
    crew.process.kill()
    wait_for(lambda: all_gone(processes))
    assert crew.stopped() == set(crew.members())
