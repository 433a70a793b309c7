"""The same job gives the same bytes: of every file, and in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from dianaq.schemas.events import EventBody, LogBody
from dianaq.schemas.recipe import Training
from dianaq.schemas.spec import SCHEDULING, JobSpec
from dianaq_quant import pipeline
from dianaq_quant.training import trace
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.optimiser import rate
from dianaq_quant.training.step import Step
from dianaq_quant.training.tasks import CLASSIFICATION

from .classes import data, network
from .jobs import MIXED, TRAININGS, contents, write_files


def bundle(folder: Path, out: str, **changes: object) -> tuple[dict[str, bytes], list[EventBody]]:
    events: list[EventBody] = []
    spec = JobSpec.model_validate({"model": "model.onnx", "dataset": "data.npz", **MIXED, **changes})
    files = {"model_path": folder / "model.onnx", "dataset_path": folder / "data.npz"}
    pipeline.run(spec, **files, out_dir=folder / out, emit=events.append)
    return contents(folder / out), events


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> dict[str, bytes]:
    return bundle(folder, "first")[0]


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def test_two_runs_give_the_same_bytes(folder: Path, first: dict[str, bytes]) -> None:
    assert {"report.json", "report.html", "README.md", "manifest.json", "bundle.zip"} < set(first)
    assert {f"tensorboard/{name}/events.out.tfevents" for name in TRAININGS} < set(first)
    assert different(bundle(folder, "second")[0], first) == []


def test_two_threads_give_the_same_bytes_each_time(folder: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        one, other = (bundle(folder, f"threads{number}")[0] for number in range(2))
    finally:
        torch.set_num_threads(threads)
    assert different(one, other) == []


def test_where_and_when_a_job_runs_changes_nothing(folder: Path, first: dict[str, bytes]) -> None:
    scheduling = {"device": "cpu", "priority": "high", "deadline_hours": 1.5}
    assert set(scheduling) == SCHEDULING
    assert different(bundle(folder, "scheduled", **scheduling)[0], first) == []


def test_another_process_gives_the_same_bytes(folder: Path, first: dict[str, bytes]) -> None:
    (folder / "job.yaml").write_text(yaml.safe_dump({**MIXED, "recipe": {"preset": None, **MIXED["recipe"]}}))
    command = [sys.executable, "-m", "dianaq_quant", "model.onnx", "--data", "data.npz", "--recipe", "job.yaml"]
    command += ["--resumable", "snapshots", "-o", "process"]
    # Sets come in another order there.
    environment = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert different(contents(folder / "process"), first) == []
    assert {path.stem for path in (folder / "snapshots").iterdir()} == set(TRAININGS)


def test_a_profile_is_a_trace_of_one_step_and_changes_nothing_else(folder: Path, first: dict[str, bytes]) -> None:
    profiled, _ = bundle(folder, "profiled", profile=True)
    names = {f"profile/{name}.json" for name in TRAININGS}
    told = {"README.md", "report.json", "report.html", "manifest.json", "bundle.zip"}  # of the job, and its files
    assert names <= set(different(profiled, first)) <= names | told
    for name in names:
        found = [event["name"] for event in json.loads(profiled[name])["traceEvents"] if event.get("ph") == "X"]
        assert [found.count(part) for part in ("forward", "backward", "update")] == [1, 1, 1]


def test_the_profiled_step_is_one_of_the_trainings_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Noted(Step):
        def __call__(self, batch: Batch) -> Tensor:
            rates.append(self.learning_rate)
            return super().__call__(batch)

    monkeypatch.setattr(trace, "Step", Noted)
    settings = Training(epochs=2, batch_size=64, warmup_epochs=0.5)  # 4 steps an epoch
    path = tmp_path / "step.json"
    trace.trace_step(network(), settings, data(), path, task=CLASSIFICATION, teacher=None, iteration="float", seed=0)
    assert rates == [settings.learning_rate * rate(step, 4, settings) for step in range(trace.WARM_UP + 1)]
    assert path.stat().st_size > 1000


def test_a_profile_of_a_job_that_trains_nothing_is_a_note(folder: Path) -> None:
    files, events = bundle(folder, "untrained", profile=True, recipe={"preset": "ptq"})
    assert not [name for name in files if name.startswith(("profile", "tensorboard"))]
    notes = [body.message for body in events if isinstance(body, LogBody)]
    assert any("no profile" in note for note in notes)
