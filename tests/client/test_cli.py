"""The command line against a fake service: what it prints, its exit status, and one line for every error."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from dianaq.cli import main, plugins
from dianaq.errors import Problem
from dianaq.schemas.events import MetricsBody, StageBody, StateBody
from dianaq.schemas.spec import ZooModel, parse_spec

from .fake_service import KEY, MODEL_INFO, FakeService, make_bundle
from .weights_samples import safetensors

REPORT = {
    "accuracy": [
        {"stage": "float", "split": "test", "samples": 2000, "top1": 0.85, "top5": 1.0, "loss": 0.4321},
        {"stage": "integerise", "split": "test", "samples": 2000, "top1": 0.8475, "top5": 0.995, "loss": 12.3456},
    ]
}


@pytest.fixture(autouse=True)
def connected(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIANAQ_URL", service.url)
    monkeypatch.setenv("DIANAQ_KEY", KEY)
    service.bundle = make_bundle({"report.json": json.dumps(REPORT).encode()})


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


ZOO = ("--zoo", "resnet8", "--input-shape", "3", "8", "8", "--classes", "10")


def test_quantise(
    service: FakeService, capsys: pytest.CaptureFixture[str], model_file: Path, dataset_file: Path, tmp_path: Path
) -> None:
    service.add(
        StateBody(state="running"),
        MetricsBody(stage="float", values={"accuracy_test": 0.85}),
        StageBody(stage="float", status="finished", seconds=1.0),
        StateBody(state="succeeded"),
    )
    out = tmp_path / "out"
    options = ("--preset", "qat", "--epochs", "float=2", "--seed", "5", "--name", "my net")
    status, printed, err = run(capsys, "quantise", model_file, "--data", dataset_file, "-o", out, *options)
    assert (status, err) == (0, "")
    assert printed.splitlines() == [
        "job job_1: my net (1,234 parameters) with data.npz",
        "  float                1.0 s   test  85.00%",
        "",
        "stage       split  samples  accuracy    top-5    loss",
        "float       test      2000    85.00%  100.00%  0.4321",
        "integerise  test      2000    84.75%   99.50%   12.35",
        "",
        f"bundle: {out}",
    ]
    assert (out / "report.json").is_file()
    assert (service.spec.model, service.spec.dataset) == ("mod_1", "dat_1")
    assert (service.spec.recipe.preset, service.spec.recipe.seed) == ("qat", 5)


def test_quantise_a_network_of_the_zoo(
    service: FakeService, capsys: pytest.CaptureFixture[str], dataset_file: Path, tmp_path: Path
) -> None:
    service.add(StateBody(state="succeeded"))
    weights = tmp_path / "best.pt"
    weights.write_bytes(safetensors())
    base = ("quantise", "--data", dataset_file, "-o", tmp_path / "out", *ZOO)
    status, printed, _ = run(capsys, *base, weights)
    assert (status, printed.splitlines()[0]) == (0, "job job_1: resnet8 (weights best.pt) with data.npz")
    network = ZooModel(architecture="resnet8", input_shape=(3, 8, 8), classes=10, weights="mod_1")
    assert service.spec.model == network
    status, printed, _ = run(capsys, *base, "--start-from", "job_0/fake_quantised")
    assert (status, printed.splitlines()[0]) == (
        0,
        "job job_1: resnet8 (no weights) from job_0/fake_quantised with data.npz",
    )
    assert service.spec.model == network.model_copy(update={"weights": None})
    assert service.spec.start_from == "job_0/fake_quantised"
    assert list(service.uploads) == ["best.pt", "data.npz"]


def test_quantise_says_what_must_be_substituted_before_the_data_are_sent(
    service: FakeService, capsys: pytest.CaptureFixture[str], model_file: Path, dataset_file: Path, tmp_path: Path
) -> None:
    service.add(StateBody(state="succeeded"))
    service.model_info = {**service.model_info, "substitutable": {"act": "hardswish", "act2": "silu"}}
    base = ("quantise", model_file, "--data", dataset_file, "-o", tmp_path / "out")
    status, out, err = run(capsys, *base, "--substitute", "silu=relu")
    assert (status, out) == (1, "")
    assert err.startswith("error: no core computes hardswish (node 'act'). substitute: {hardswish: relu6} in the job")
    assert list(service.uploads) == ["net.onnx"]
    status, _, err = run(capsys, *base, "--substitute", "silu=relu", "hardswish=relu6")
    assert (status, err) == (0, "")
    assert service.spec.substitute == {"silu": "relu", "hardswish": "relu6"}


def test_quantise_checks_everything_before_uploading(
    service: FakeService, capsys: pytest.CaptureFixture[str], model_file: Path, dataset_file: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("float: {learning_rate: -1}")
    weights = tmp_path / "w"
    weights.write_bytes(safetensors())
    base = ("quantise", model_file, "--data", dataset_file)
    for arguments, words in (
        ((*base, "-o", taken), "other things"),
        ((*base, "-o", tmp_path / "out", "--recipe", recipe), "recipe.float.learning_rate"),
        ((*base, "-o", tmp_path / "out", "--std", "0"), "preprocessing.std"),
        ((*base, "-o", tmp_path / "out", *ZOO), "the weights of resnet8 must be safetensors"),
        (("quantise", weights, "--data", dataset_file, "-o", tmp_path / "out"), "holds weights (safetensors)"),
        (("quantise", "--data", dataset_file, "-o", tmp_path / "out"), "no network is given"),
        ((*base, "-o", tmp_path / "out", "--start-from", "job_1"), "start_from"),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert words in err
        assert err.count("\n") == 1
    assert service.requests == []


def test_a_failed_job(
    service: FakeService, capsys: pytest.CaptureFixture[str], model_file: Path, dataset_file: Path, tmp_path: Path
) -> None:
    problem = Problem(type="unsupported-operator", title="Unsupported", detail="node 'a': Sigmoid", status=422)
    service.add(StateBody(state="failed", error=problem))
    status, _, err = run(capsys, "quantise", model_file, "--data", dataset_file, "-o", tmp_path / "out")
    assert (status, err) == (1, "error: job job_1 failed: Unsupported: node 'a': Sigmoid\n")
    assert not (tmp_path / "out").exists()


REFUSAL = {"type": "unsupported-operator", "title": "T", "detail": "node 'nms': no core computes it", "status": 422}


def test_a_network_that_is_refused_ends_before_the_dataset_is_uploaded(
    service: FakeService, capsys: pytest.CaptureFixture[str], model_file: Path, dataset_file: Path, tmp_path: Path
) -> None:
    service.model_info = {**MODEL_INFO, "refusal": REFUSAL}
    status, _, err = run(capsys, "quantise", model_file, "--data", dataset_file, "-o", tmp_path / "out")
    assert (status, err) == (1, "error: node 'nms': no core computes it\n")
    assert list(service.uploads) == ["net.onnx"]
    service.add(StateBody(state="succeeded"))
    ends = ("--from", "stem", "--to", "fc")
    status, out, err = run(capsys, "quantise", model_file, "--data", dataset_file, "-o", tmp_path / "out", *ends)
    assert (status, err) == (0, "")
    assert "net.onnx (1,234 parameters), from 'stem' to 'fc' with data.npz" in out
    assert service.spec.part is not None
    assert (service.spec.part.from_, service.spec.part.to) == ("stem", "fc")


@pytest.mark.parametrize("command", ["jobs", "sweep"])
def test_so_do_submissions_of_files(
    service: FakeService,
    capsys: pytest.CaptureFixture[str],
    model_file: Path,
    dataset_file: Path,
    tmp_path: Path,
    command: str,
) -> None:
    service.model_info = {**MODEL_INFO, "refusal": REFUSAL}
    job = {"model": str(model_file), "dataset": str(dataset_file)}
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(job if command == "jobs" else {"job": job, "grid": {"recipe.seed": [0, 1]}}))
    assert run(capsys, command, "submit", spec)[::2] == (1, "error: node 'nms': no core computes it\n")
    assert list(service.uploads) == ["net.onnx"]
    job["part"] = {"to": "fc"}  # type: ignore[assignment]
    spec.write_text(json.dumps(job if command == "jobs" else {"job": job, "grid": {"recipe.seed": [0, 1]}}))
    assert run(capsys, command, "submit", spec)[::2] == (0, "")
    assert list(service.uploads) == ["net.onnx", "data.npz"]


def test_interrupting_leaves_the_job_alone(
    service: FakeService,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model_file: Path,
    dataset_file: Path,
) -> None:
    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dianaq.client.JobHandle.wait", interrupt)
    status, _, err = run(capsys, "quantise", model_file, "--data", dataset_file, "-o", "out")
    assert status == 130
    for command in ("show job_1 --follow", "download job_1 -o out", "cancel job_1"):
        assert f"dianaq jobs {command}" in err
    assert not any("cancel" in request for request in service.requests)


@pytest.mark.parametrize("command", ["jobs", "models", "datasets"])
def test_lists(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, _ = run(capsys, command, "list")
    assert status == 0
    assert {"jobs": "job_2", "models": "1x8x8", "datasets": "8x8 uint8"}[command] in out
    status, out, _ = run(capsys, command, "list", "--json")
    assert (status, json.loads(out)[0]["id"]) == (0, {"jobs": "job_1", "models": "mod_1", "datasets": "dat_1"}[command])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"accuracy_test": 0.5, "top5_test": 0.9, "loss_test": 2.0}, "50.00%"),
        ({"accuracy_val": 0.25}, "25.00%"),
        ({"auc_test": 0.95678, "mse_test": 0.1}, "AUC 0.9568"),
        ({"mse_val": 0.00123}, "MSE 0.001230"),
        ({"loss": 1.0}, "-"),
    ],
)
def test_the_list_shows_the_most_telling_figure_of_the_last_measured_stage(
    service: FakeService, capsys: pytest.CaptureFixture[str], values: dict[str, float], shown: str
) -> None:
    metrics = {"float": {}, "integerise": values}
    service.job = service.job.model_copy(update={"metrics": metrics})
    _, out, _ = run(capsys, "jobs", "list")
    header, first = out.splitlines()[:2]
    assert first[header.index("figure") :].strip() == shown


def test_the_summary_of_an_autoencoder(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = {
        "accuracy": [
            {"stage": "float", "split": "test", "samples": 9, "mse": 0.0123456, "auc": 0.95678},
            {"stage": "integerise", "split": "test", "samples": 9, "mse": 0.125},
        ]
    }
    service.bundle = make_bundle({"report.json": json.dumps(report).encode()})
    service.move("succeeded")
    _, out, _ = run(capsys, "jobs", "download", "job_1", "-o", tmp_path / "out")
    assert out.splitlines()[:3] == [
        "stage       split  samples      MSE  AUC",
        "float       test         9  0.01235  0.9568",
        "integerise  test         9   0.1250  -",
    ]


def test_show(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem(type="internal-error", title="Internal error", detail="it broke")
    service.move("failed", stage="float", metrics={"float": {"accuracy_test": 0.5}}, error=problem)
    status, out, _ = run(capsys, "jobs", "show", "job_1")
    assert status == 0
    assert "failed (float)" in out
    assert "test  50.00%" in out
    assert "Internal error: it broke" in out
    assert json.loads(run(capsys, "jobs", "show", "job_1", "--json")[1])["state"] == "failed"


def test_submit_by_id_and_by_file(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path, model_file: Path
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"dataset": "dat_7", "recipe": {"preset": "qat"}}))
    status, out, _ = run(capsys, "jobs", "submit", spec, "--model", model_file)
    assert (status, out) == (0, "job_1\n")
    assert (service.spec.model, service.spec.dataset, service.spec.recipe.preset) == ("mod_1", "dat_7", "qat")


def test_submit_uploads_the_weights_of_a_zoo_network(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec, weights = tmp_path / "spec.json", tmp_path / "best.safetensors"
    zoo = {"architecture": "ds_cnn", "input_shape": [1, 10, 49], "classes": 12, "weights": str(weights)}
    spec.write_text(json.dumps({"model": zoo, "dataset": "dat_7"}))
    weights.write_bytes(b"\x08\x09 a network")
    status, _, err = run(capsys, "jobs", "submit", spec)
    assert (status, service.requests) == (1, [])
    assert "the weights of ds_cnn must be" in err
    weights.write_bytes(safetensors())
    assert run(capsys, "jobs", "submit", spec)[:2] == (0, "job_1\n")
    assert service.spec.upload == "mod_1"
    assert isinstance(service.spec.model, ZooModel)


def test_show_a_zoo_network(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    zoo = {"architecture": "ds_cnn", "input_shape": [1, 10, 49], "classes": 12, "width": 0.5}
    service.job = service.job.model_copy(
        update={"spec": parse_spec({"model": zoo, "dataset": "d", "start_from": "job_0/float"})}
    )
    out = run(capsys, "jobs", "show", "job_1")[1]
    assert "ds_cnn 1x10x49, width 0.5, no weights" in out
    assert "job_0/float" in out


def test_models_and_weights_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "models", "list")[1].splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["mod_1", "net", "onnx"], ["mod_0", "w", "safetensors"]]
    assert "3 tensors" in lines[2]


def test_submit_needs_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("seed: 1")
    status, _, err = run(capsys, "jobs", "submit", tmp_path / "r.yaml")
    assert status == 1
    assert "names no model; add it, or give --model" in err


def test_cancel_and_download(service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "jobs", "cancel", "job_1")[:2] == (0, "job job_1 is cancelled\n")
    assert "has no bundle" in run(capsys, "jobs", "download", "job_1", "-o", tmp_path / "out")[2]
    service.move("succeeded")
    status, out, _ = run(capsys, "jobs", "download", "job_1", "-o", tmp_path / "out")
    assert status == 0
    assert "84.75%" in out


def test_schema_and_version_need_no_service(
    service: FakeService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIANAQ_URL")
    assert "preprocessing" in json.loads(run(capsys, "schema")[1])["properties"]
    assert run(capsys, "schema", "job")[1] == run(capsys, "schema")[1]
    assert "noise_sweep" in json.loads(run(capsys, "schema", "report")[1])["properties"]
    assert run(capsys, "schema", "network")[0] == 2
    assert run(capsys, "version")[1].startswith("dianaq ")
    assert "dianaq up" in run(capsys, "jobs", "list")[2]


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "jobs", "list", "--state", "lost")[0] == 2
    assert run(capsys, "jobs", "list", "--bogus")[0] == 2
    assert run(capsys)[0] == 2


def _install(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    entry = EntryPoint("shine", target, plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == plugins.GROUP else [])


def register_shine(subparsers: Any) -> None:
    def shine(args: argparse.Namespace) -> int:
        print("shining", args.hours)
        return 7

    parser = subparsers.add_parser("shine")
    parser.add_argument("hours", type=int)
    parser.set_defaults(run=shine)


def test_commands_of_other_packages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, f"{__name__}:register_shine")
    assert run(capsys, "shine", "3") == (7, "shining 3\n", "")
    assert run(capsys, "shine", "3", "--bogus")[0] == 2


def test_a_missing_extra_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, "not_installed_anywhere:register")
    status, out, err = run(capsys, "shine", "--port", "8000")
    assert (status, out) == (1, "")
    assert 'pip install "dianaq[embedded]"' in err
    assert "not_installed_anywhere" in err


def test_delete(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "models", "delete", "mod_1")[:2] == (0, "mod_1 is deleted\n")
    assert run(capsys, "datasets", "delete", "dat_1")[:2] == (0, "dat_1 is deleted\n")
    assert run(capsys, "jobs", "delete", "job_1")[:2] == (0, "job job_1 is deleted\n")
    assert service.deleted == ["/v1/models/mod_1", "/v1/datasets/dat_1", "/v1/jobs/job_1"]
    service.answer = Problem(type="conflict", title="No", detail="model mod_1 is in use by job job_1", status=409)
    code, _, error = run(capsys, "models", "delete", "mod_1")
    assert (code, error) == (1, "error: model mod_1 is in use by job job_1\n")
