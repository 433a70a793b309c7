"""`dianaq sweep` against a fake service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dianaq.cli import main

from .fake_service import KEY, FakeService
from .test_sweeps import TABLE
from .weights_samples import safetensors


@pytest.fixture(autouse=True)
def connected(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIANAQ_URL", service.url)
    monkeypatch.setenv("DIANAQ_KEY", KEY)
    monkeypatch.setattr("dianaq._sweep.POLL_SECONDS", 0.01)
    service.table = TABLE


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["sweep", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"job": {"recipe": {"preset": "ptq"}}, "grid": {"recipe.seed": [0, 1]}}))
    return path


def test_submit_uploads_the_files_and_follows(
    service: FakeService, capsys: pytest.CaptureFixture[str], file: Path, model_file: Path, dataset_file: Path
) -> None:
    service.sweep_states = [["running", "running"], ["succeeded", "failed"]]
    status, out, err = run(capsys, "submit", file, "--model", model_file, "--data", dataset_file, "--follow")
    assert status == 1
    assert out.splitlines()[:3] == ["swp_1: 2 jobs: 2 queued", "  2 jobs: 2 running", "  2 jobs: 1 succeeded, 1 failed"]
    assert out.splitlines()[4:] == [
        "job    recipe.seed  task            state      float   integerise  latency ms  energy uJ  memory KiB",
        "job_1            0  classification  succeeded  90.00%  87.50%      1.25        3          3",
        "job_2            1  classification  failed     -       -           -           -          -",
    ]
    assert err == 'error: job job_2 failed: Lost: it said "a, b"\n'
    assert service.sweep is not None
    assert service.sweep.spec.job == {"model": "mod_1", "dataset": "dat_1", "recipe": {"preset": "ptq"}}
    assert list(service.uploads) == ["net.onnx", "data.npz"]


def test_submit_with_ids_and_weights_of_a_zoo_network(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(safetensors())
    zoo = {"architecture": "resnet8", "input_shape": [3, 8, 8], "classes": 10}
    spec = tmp_path / "sweep.json"
    spec.write_text(json.dumps({"job": {"model": zoo, "dataset": "dat_7"}, "grid": {"recipe.seed": [0]}}))
    status, out, err = run(capsys, "submit", spec, "--model", weights)
    assert (status, out, err) == (0, "swp_1: 1 job: 1 queued\n", "")
    assert service.sweep is not None
    assert service.sweep.spec.job == {"model": {**zoo, "weights": "mod_1"}, "dataset": "dat_7"}


def test_all_is_checked_before_anything_is_uploaded(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path, model_file: Path
) -> None:
    for content, words in (
        ({"grid": {"recipe.seed": [0]}}, "has no job; a sweep takes the keys job and grid"),
        ({"job": {"dataset": "d"}, "grid": {"recipe.seed": [0, -1]}}, "point 2 of 2 (recipe.seed: -1)"),
        ({"job": {"dataset": "d"}, "grid": {"seed": [0]}}, "'seed'"),
        ({"job": {"dataset": "d"}, "grid": {"recipe.seed": [0]}, "grids": {}}, "grids"),
    ):
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(content))
        status, out, err = run(capsys, "submit", path, "--model", model_file)
        assert (status, out) == (1, "")
        assert words in err
    assert service.requests == []


def test_list_show_cancel(service: FakeService, capsys: pytest.CaptureFixture[str], file: Path) -> None:
    run(capsys, "submit", file, "--model", "m", "--data", "d")
    assert "swp_1" in run(capsys, "list")[1]
    assert "recipe.seed  2 jobs: 2 queued" in run(capsys, "list")[1]
    assert json.loads(run(capsys, "list", "--json")[1])[0]["id"] == "swp_1"
    assert run(capsys, "show", "swp_1")[1].splitlines() == [
        "swp_1: 2 jobs: 2 queued",
        "",
        "job    state   point",
        "job_1  queued  recipe.seed=0",
        "job_2  queued  recipe.seed=1",
    ]
    assert json.loads(run(capsys, "show", "swp_1", "--json")[1])["states"] == {"queued": 2}
    assert run(capsys, "cancel", "swp_1")[1] == "sweep swp_1: 2 jobs: 2 cancelled\n"


def test_table_in_every_format(
    service: FakeService, capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    run(capsys, "submit", file, "--model", "m", "--data", "d")
    assert run(capsys, "table", "swp_1")[1].startswith("job    recipe.seed  task ")
    assert run(capsys, "table", "swp_1", "--format", "markdown")[1] == f"{TABLE.markdown()}\n"
    assert json.loads(run(capsys, "table", "swp_1", "--format", "json")[1]) == TABLE.model_dump(mode="json")
    out = tmp_path / "t.csv"
    assert run(capsys, "table", "swp_1", "--format", "csv", "-o", out)[1] == ""
    assert out.read_text().splitlines() == TABLE.csv().splitlines()


def test_ctrl_c_leaves_the_sweep_alone(
    service: FakeService, capsys: pytest.CaptureFixture[str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dianaq._sweep.time.sleep", interrupt)
    status, _, err = run(capsys, "submit", file, "--model", "m", "--data", "d", "--follow")
    assert (status, "dianaq sweep cancel swp_1" in err) == (130, True)
    assert service.sweep is not None
    assert service.sweep.states == {"queued": 2}
