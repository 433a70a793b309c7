"""Whole jobs: what a bundle holds, what the report says, and that nothing is left of a job that failed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from dianaq.errors import InvalidDataset, InvalidSpec, JobCancelled, UnsupportedOperator
from dianaq.schemas.events import LogBody, MetricsBody, StageBody
from dianaq.schemas.spec import JobSpec
from dianaq_quant.pipeline import pipeline

from .builder import ModelBuilder
from .jobs import CLASSES, images
from .support import Outcome, quantise

ITERATIONS = ["float", "fake_quantised", "hardware_mapped", "hardware_exact"]


def classifier(*, softmax: bool = False) -> onnx.ModelProto:
    """An untrained classifier of 6 x 6 RGB images."""
    b = ModelBuilder((3, 6, 6), seed=2)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False, name="first")))
    y = b.relu(b.add(b.batch_norm(b.conv(y, 8, pads=(1, 1, 1, 1), bias=False, name="second")), y))
    y = b.gemm(b.flatten(b.global_pool(y)), CLASSES, name="head")
    return b.build(b.node("Softmax", [y], y.shape, "probabilities", axis=1) if softmax else y)


def dataset() -> dict[str, np.ndarray]:
    (x_train, y_train), (x_test, y_test) = images(240, 0), images(100, 1)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


TRAINED: dict[str, Any] = {
    "preprocessing": {"mean": [0.5], "std": [0.5]},
    "recipe": {
        "float": {"epochs": 6, "learning_rate": 0.05, "batch_size": 24},
        "fake_quantised": {"epochs": 1, "learning_rate": 0.01, "batch_size": 24},
        "hardware_mapped": {"epochs": 1, "learning_rate": 0.01, "batch_size": 24},
        "hardware_exact": {"epochs": 2, "learning_rate": 0.001, "batch_size": 24, "distillation": 0.5},
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A job that trains all four iterations from scratch."""
    return quantise(classifier(softmax=True), dataset(), tmp_path_factory.mktemp("job"), **TRAINED)


def test_every_stage_is_measured_and_the_integer_network_keeps_the_accuracy(trained: Outcome) -> None:
    entries = trained.report["accuracy"]
    assert [e["stage"] for e in entries] == [*ITERATIONS, "integerise"]
    assert all((e["split"], e["samples"]) == ("test", 100) for e in entries)
    assert all(set(e) == {"stage", "split", "samples", "top1", "loss"} for e in entries)  # 3 classes: no top-5
    top1 = {e["stage"]: e["top1"] for e in entries}
    assert top1["float"] > 0.9
    assert top1["integerise"] == top1["hardware_exact"] >= top1["float"] - 0.05


def test_the_exported_network_has_the_reported_accuracy(trained: Outcome) -> None:
    import onnxruntime

    x, y = dataset()["x_test"], dataset()["y_test"]
    session = onnxruntime.InferenceSession(trained.folder / "htvm/model.onnx", providers=["CPUExecutionProvider"])
    inputs = ((x.transpose(0, 3, 1, 2) / np.float32(255) - 0.5) / 0.5).astype(np.float32)
    right = [
        session.run(None, {"input": image[None]})[0].argmax() == label for image, label in zip(inputs, y, strict=True)
    ]
    assert np.mean(right) == trained.report["accuracy"][-1]["top1"]


def test_events_tell_the_stages_in_order_and_the_training_by_epoch(trained: Outcome) -> None:
    assert trained.finished() == [name for name, _ in pipeline.STAGES]
    started = [e.stage for e in trained.events if isinstance(e, StageBody) and e.status == "started"]
    assert started == trained.finished()
    assert [m.epoch for m in trained.metrics("hardware_exact")] == [1, 2, None]
    assert "objective_val" in trained.metrics("hardware_exact")[0].values
    assert set(trained.metrics("integerise")[0].values) == {"accuracy_test", "loss_test"}


def test_the_bundles_readme_has_the_figures_of_every_stage(trained: Outcome) -> None:
    text = (trained.folder / "README.md").read_text()
    assert "| stage | accuracy | loss | samples |" in text
    for entry in trained.report["accuracy"]:
        assert f"| {entry['stage']} | {entry['top1']:.2%} | {entry['loss']:#.4g} | 100 (test) |" in text


def test_the_report_says_what_was_done(trained: Outcome) -> None:
    report = trained.report
    assert report["samples"] == {"train": 216, "val": 24, "test": 100, "calibration": 216}
    assert len(report["training"]) == 10
    assert any("probabilities" in note and "dropped" in note for note in report["notes"])
    assert any(isinstance(e, LogBody) and "probabilities" in e.message for e in trained.events)
    assert {e["editor"] for e in report["edits"] if e["applied"]} >= {
        "ConvertLinear",
        "Interpose",
        "HarmoniseAdds",
        "MapScale",
        "FoldBatchNorm",
        "FuseRequantisation",
        "IntegerBoundary",
        "Integerise",
    }
    assert all(e["note"] for e in report["edits"] if not e["applied"])
    assert report["verification"]["data_samples"] + report["verification"]["random_samples"] >= 100
    assert {f["rule"] for f in report["checks"]["htvm"]} == {"htvm.pool"}
    assert not {f["rule"] for f in report["checks"]["dory"]} & {"soc.relu-after-add", "soc.channels"}
    assert any("soc.width" in note for note in report["notes"])
    assert report["versions"]["torch"]
    layers = {entry.get("original"): entry for entry in report["layers"]}
    first = layers["first"]
    assert first["core"] == "digital"
    assert first["range"] == [0, 127]
    assert first["weight_scale"] * first["input_scale"] * 2 ** first["shift"] == pytest.approx(first["scale"])
    assert -128 <= first["weight_range"][0] < first["weight_range"][1] <= 127


def test_the_manifest_and_the_zip_describe_the_folder(trained: Outcome) -> None:
    folder = trained.folder
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json", "bundle.zip"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert JobSpec.model_validate(manifest["spec"]).recipe.float_.epochs == 6
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        assert set(archive.namelist()) == files - {"bundle.zip"}
        assert all(archive.read(name) == (folder / name).read_bytes() for name in archive.namelist())
    assert (folder.stat().st_mode & 0o777) == 0o755


def test_the_same_seed_gives_the_same_network(trained: Outcome, tmp_path: Path) -> None:
    again = quantise(classifier(softmax=True), dataset(), tmp_path, **TRAINED)
    for name in ("htvm/model.onnx", "htvm/output.npy", "dory/model.onnx", "dory/out_layer0.txt"):
        assert (again.folder / name).read_bytes() == (trained.folder / name).read_bytes()


def test_a_post_training_job_needs_no_labels(tmp_path: Path) -> None:
    outcome = quantise(classifier(), {"x_train": images(30, 0)[0]}, tmp_path, recipe={"preset": "ptq"})
    assert outcome.report["accuracy"] == []
    assert outcome.report["samples"] == {"train": 30, "calibration": 30}
    assert "Not measured" in (outcome.folder / "README.md").read_text()


def test_accuracy_falls_back_on_held_out_training_data(tmp_path: Path) -> None:
    x, y = images(100, 0)
    outcome = quantise(classifier(), {"x_train": x, "y_train": y}, tmp_path, recipe={"preset": "ptq"})
    assert {(e["split"], e["samples"]) for e in outcome.report["accuracy"]} == {("val", 10)}


def narrow(tmp_path: Path) -> Outcome:
    weights, activations = {"bitwidth": 4, "signed": True}, {"n_levels": 100, "signed": True}
    quantisers = {"weights": {"range": weights}, "activations": {"range": activations}}
    return quantise(classifier(), {"x_train": images(40, 0)[0]}, tmp_path, recipe={"quantisers": quantisers})


def test_narrower_weights_stay_narrow_and_activations_become_the_chips(tmp_path: Path) -> None:
    layers = [entry for entry in narrow(tmp_path).report["layers"] if "weight_range" in entry]
    assert len(layers) == 3
    for layer in layers:
        assert layer["weight_range"][0] >= -8
        assert layer["weight_range"][1] <= 7
        assert layer["range"] in ([0, 127], [-128, 127])


@pytest.mark.parametrize(
    ("error", "arrays", "spec", "match"),
    [
        (InvalidDataset, {"x_train": np.zeros((4, 5, 5, 3), np.uint8)}, {}, r"\(5, 5, 3\).*\(3, 6, 6\)"),
        (
            InvalidSpec,
            {"x_train": np.zeros((4, 6, 6, 3), np.uint8)},
            {"mapping": {"layers": {"frist": "digital"}}},
            "first",
        ),
        (InvalidSpec, {"x_train": np.zeros((4, 6, 6, 3), np.uint8)}, {"recipe": {"preset": "qat"}}, "no labels"),
    ],
    ids=["shape", "layer", "labels"],
)
def test_a_refused_job_leaves_nothing(
    tmp_path: Path, error: type[Exception], arrays: dict[str, np.ndarray], spec: dict[str, Any], match: str
) -> None:
    with pytest.raises(error, match=match):
        quantise(classifier(), arrays, tmp_path, **spec)
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "data.npz"}


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    b = ModelBuilder((3, 6, 6))
    y = b.node("Sigmoid", [b.conv(b.input, 4)], (4, 4, 4), "squash")
    with pytest.raises(
        UnsupportedOperator,
        match=r"no core computes sigmoid \(node 'squash'\)\. substitute: {sigmoid: relu6} in the job",
    ):
        quantise(b.build(b.flatten(b.global_pool(y))), {"x_train": images(4, 0)[0]}, tmp_path)


def test_a_cancelled_or_failing_job_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(classifier(), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x_train=images(20, 0)[0])
    paths = {"model_path": tmp_path / "m.onnx", "dataset_path": tmp_path / "d.npz", "out_dir": tmp_path / "out"}
    spec = JobSpec(model="m", dataset="d")
    events = []
    stopped = lambda: any(isinstance(e, MetricsBody | StageBody) and e.stage == "export" for e in events)  # noqa: E731
    with pytest.raises(JobCancelled, match="verify"):
        pipeline.run(spec, **paths, emit=events.append, should_stop=stopped)
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "d.npz"}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "bundle_readme", full)
    with pytest.raises(OSError, match="No space left"):
        pipeline.run(spec, **paths, emit=events.append)
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "d.npz"}


def test_an_output_folder_in_use_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "precious.txt").write_text("mine")
    with pytest.raises(InvalidSpec, match="not empty"):
        quantise(classifier(), {"x_train": images(4, 0)[0]}, tmp_path)
    assert (tmp_path / "bundle" / "precious.txt").read_text() == "mine"


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dianaq_quant", *args], capture_output=True, text=True, check=False)


def test_the_standalone_command_gives_a_bundle(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **dataset())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"recipe": {"quantisers": {"activations": {"init": "percentile"}}}}))
    options = ["--preset", "ptq", "--recipe", str(recipe), "--epochs", "hardware_exact=1", "--mean", "0.5"]
    result = command(str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz"), "-o", str(tmp_path / "out"), *options)
    assert result.returncode == 0, result.stderr
    assert "verify" in result.stdout
    spec = json.loads((tmp_path / "out" / "manifest.json").read_text())["spec"]
    assert spec["recipe"]["quantisers"]["activations"]["init"]["strategy"] == "percentile"
    assert spec["recipe"]["hardware_exact"]["epochs"] == 1
    assert spec["preprocessing"]["mean"] == [0.5]


def test_the_standalone_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a network")
    np.savez(tmp_path / "d.npz", **dataset())
    out = tmp_path / "out"
    result = command(str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz"), "-o", str(out))
    assert result.returncode == 1
    assert result.stderr.startswith("error: the file is text; a network is given as ONNX")
    assert result.stderr.count("\n") == 1
    assert not out.exists()
