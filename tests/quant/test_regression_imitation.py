"""Whole jobs of networks that give numbers: a pose, an embedding, the map of a detection head."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dianaq.errors import InvalidDataset
from dianaq.schemas.figures import telling
from dianaq.schemas.report import read_report
from dianaq_quant import quantise as quantise_in_notebook

from .builder import ModelBuilder
from .support import Outcome, quantise

SIDE = 8
STAGES = ["float", "fake_quantised", "hardware_mapped", "hardware_exact", "integerise"]
ADAM = {"optimiser": "adam", "batch_size": 16}


def pose() -> onnx.ModelProto:
    """An untrained convolutional network with two outputs."""
    b = ModelBuilder((1, SIDE, SIDE), seed=1)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False)))
    y = b.relu(b.batch_norm(b.conv(y, 8, stride=(2, 2), pads=(1, 1, 1, 1), bias=False)))
    return b.build(b.gemm(b.flatten(y), 2, scale=0.1))


def spots(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, 8, 8) with a bright spot, and where it is in micrometres: row and column, times 1000 each."""
    random = np.random.default_rng(seed)
    place = random.uniform(1, SIDE - 2, (count, 2))
    grid = np.mgrid[:SIDE, :SIDE].transpose(1, 2, 0)
    distance = ((grid - place[:, None, None]) ** 2).sum(-1)
    return (250 * np.exp(-distance / 2)).astype(np.uint8), place * 1000 - 3500


def pose_data() -> dict[str, np.ndarray]:
    (x_train, y_train), (x_test, y_test) = spots(240, 0), spots(60, 1)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test.astype(np.float32)}


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A job that trains a pose network in micrometres, and quantises it with a short training."""
    recipe = {
        "preset": "qat-fast",
        "float": {**ADAM, "epochs": 30, "learning_rate": 0.01},
        "hardware_mapped": {"batch_size": 16, "learning_rate": 0.01},
        "hardware_exact": {"batch_size": 16, "augmentation": {"mixup": 0.2}},
    }
    return quantise(pose(), pose_data(), tmp_path_factory.mktemp("job"), task="regression", recipe=recipe)


def test_a_pose_network_learns_micrometres_and_keeps_them(posed: Outcome) -> None:
    entries = posed.report["accuracy"]
    assert [e["stage"] for e in entries] == STAGES
    assert all(set(e) == {"stage", "split", "samples", "mse", "mae", "r2"} for e in entries)
    assert {(e["split"], e["samples"]) for e in entries} == {("test", 60)}
    assert entries[0]["r2"] > 0.9
    assert entries[-1]["r2"] > entries[0]["r2"] - 0.05
    assert entries[-1]["mae"] < 500
    labels = pose_data()["y_train"]
    assert posed.report["labels"]["std"] == pytest.approx(labels.std(0).tolist(), rel=0.1)
    assert np.abs(np.subtract(posed.report["labels"]["mean"], labels.mean(0))).max() < 200


def test_the_exported_network_has_the_reported_figures(posed: Outcome) -> None:
    arrays = pose_data()
    x = (arrays["x_test"][:, None] / np.float32(255)).astype(np.float32)
    session = onnxruntime.InferenceSession(posed.folder / "htvm/model.onnx", providers=["CPUExecutionProvider"])
    outputs = np.concatenate([session.run(None, {"input": sample[None]})[0] for sample in x]).astype(np.float64)
    last, y = posed.report["accuracy"][-1], arrays["y_test"].astype(np.float64)
    assert outputs[:, :2].shape == y.shape
    error = outputs[:, :2] - y
    assert (error**2).mean() == pytest.approx(last["mse"], rel=1e-5)
    assert np.abs(error).mean() == pytest.approx(last["mae"], rel=1e-5)
    assert (1 - (error**2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)).mean() == pytest.approx(last["r2"], rel=1e-4)


def test_every_reader_copes_with_a_regression(posed: Outcome) -> None:
    last = read_report(posed.folder).stages["integerise"]
    assert last.r2 is not None
    text = (posed.folder / "README.md").read_text()
    assert "| stage | MSE | MAE | R² | samples |" in text
    assert "in the labels' unit" in text
    assert "anomal" not in text
    page = (posed.folder / "report.html").read_text(encoding="utf-8")
    assert "MAE on val" in page
    assert "MSE, float → integer" in page
    values = posed.metrics("integerise")[-1].values
    assert set(values) == {"mse_test", "mae_test", "r2_test"}
    assert telling(values) == f"MSE {last.mse:#.4g}"
    assert set(posed.metrics("hardware_mapped")[0].values) == {"loss", "mse_val", "mae_val", "r2_val", "objective_val"}


def test_one_output_takes_labels_of_one_dimension_and_integers(tmp_path: Path) -> None:
    b = ModelBuilder((6,), seed=2)
    model = b.build(b.gemm(b.relu(b.gemm(b.input, 12)), 1))
    x = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    recipe = {"preset": "ptq-tuned", "hardware_exact": {"epochs": 1}}
    y = (x.sum(1) * 100).astype(np.int64)
    outcome = quantise(model, {"x_train": x, "y_train": y}, tmp_path, task="regression", recipe=recipe)
    assert outcome.report["labels"]["std"] == pytest.approx([y.std()], rel=0.1)
    assert [e["stage"] for e in outcome.report["accuracy"]] == STAGES


def test_labels_that_are_finer_than_a_step_of_the_output_are_told(tmp_path: Path) -> None:
    x, y = spots(60, 0)
    y = np.stack((y[:, 0] + 1e6, y[:, 1]), 1)
    notes = {}
    for name, labels in (("far", y), ("near", y - y.mean(0))):
        (tmp_path / name).mkdir()
        recipe = {"float": {**ADAM, "epochs": 8, "learning_rate": 0.1}}
        outcome = quantise(pose(), {"x_train": x, "y_train": labels}, tmp_path / name, task="regression", recipe=recipe)
        notes[name] = [note for note in outcome.report["notes"] if "one step of the output" in note]
    assert notes["near"] == []
    (note,) = notes["far"]
    assert "outputs 0, 1 have a standard deviation of" in note
    assert "labels less their mean" in note


def test_a_regression_without_labels_is_tuned_and_not_measured(tmp_path: Path) -> None:
    recipe = {"preset": "ptq-tuned", "hardware_exact": {"epochs": 1}}
    arrays = {"x_train": spots(60, 0)[0]}
    outcome = quantise(pose(), arrays, tmp_path, task="regression", recipe=recipe)
    assert outcome.report["accuracy"] == []
    assert "labels" not in outcome.report
    assert [set(e) for e in outcome.report["training"]] == [{"stage", "epoch", "loss", "objective_val"}]
    assert math.isfinite(outcome.report["training"][0]["objective_val"])


def embedding() -> onnx.ModelProto:
    b = ModelBuilder((16,), seed=3)
    y = b.relu(b.batch_norm(b.gemm(b.input, 24, bias=False)))
    return b.build(b.gemm(y, 6, scale=50))


def detector() -> onnx.ModelProto:
    """A head of 2 anchors x (4 coordinates + 1 + 2 classes) values at each place of a 4 x 4 map."""
    b = ModelBuilder((3, SIDE, SIDE), seed=4)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False)))
    y = b.relu(b.batch_norm(b.conv(y, 16, stride=(2, 2), pads=(1, 1, 1, 1), bias=False)))
    return b.build(b.conv(y, 14, (1, 1)))


def samples(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "shape", "output"), [(embedding(), (16,), [6]), (detector(), (3, SIDE, SIDE), [14, 4, 4])]
)
@pytest.mark.parametrize("preset", ["ptq", "qat-fast"])
def test_the_integer_network_goes_on_as_the_float_one(
    model: onnx.ModelProto, shape: tuple[int, ...], output: list[int], preset: str, tmp_path: Path
) -> None:
    arrays = {"x_train": samples(120, *shape), "x_test": samples(40, *shape, seed=1)}
    outcome = quantise(model, arrays, tmp_path, task="imitation", recipe={"preset": preset})
    entries = outcome.report["accuracy"]
    assert [e["stage"] for e in entries] == STAGES
    assert (entries[0]["sqnr_db"], entries[0]["agreement"]) == (144.0, 1.0)
    assert entries[-1]["sqnr_db"] == entries[-2]["sqnr_db"] > 20
    assert entries[-1]["agreement"] > 0.9
    assert outcome.report["interface"]["output"]["shape"] == output
    assert outcome.report["verification"]["tensors"] > 1
    assert outcome.report["checks"]["htvm"] == [
        f for f in outcome.report["checks"]["htvm"] if f["severity"] not in ("rejected", "wrong")
    ]
    golden = np.load(outcome.folder / "golden" / "htvm_output.npy")
    assert list(golden.shape[2:]) == output[1:]
    if preset != "ptq":
        assert set(outcome.metrics("hardware_mapped")[0].values) == {"loss", "sqnr_db_val", "agreement_val"}
        assert outcome.metrics("hardware_mapped")[0].values["loss"] < 2  # in standard deviations, squared


@pytest.fixture(scope="module")
def imitated(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A mixed network with labels that are not used, tuned and measured under noise."""
    b = ModelBuilder((3, SIDE, SIDE), seed=5)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False)))
    y = b.relu(b.batch_norm(b.conv(y, 16, pads=(1, 1, 1, 1), bias=False, name="second")))
    arrays = {"x_train": samples(80, 3, SIDE, SIDE), "y_train": np.arange(80), "x_val": samples(30, 3, SIDE, SIDE)}
    recipe: dict[str, Any] = {
        "hardware_exact": {**ADAM, "epochs": 2, "learning_rate": 1e-3, "augmentation": "flip_crop"},
        "noise_sweep": {"gaussian": [0, 2], "draws": 2},
    }
    folder, mapping = tmp_path_factory.mktemp("job"), {"layers": {"second": "analog"}}
    return quantise(b.build(b.conv(y, 6, (1, 1))), arrays, folder, task="imitation", recipe=recipe, mapping=mapping)


def test_labels_of_an_imitation_are_ignored_and_noise_is_told_by_likeness(imitated: Outcome) -> None:
    assert [note for note in imitated.report["notes"] if "labels are ignored" in note]
    quiet, noisy = imitated.report["noise_sweep"]
    assert quiet["sqnr_db"]["mean"] > noisy["sqnr_db"]["mean"]
    assert quiet["sqnr_db"]["mean"] == pytest.approx(imitated.report["accuracy"][-1]["sqnr_db"])
    epochs = imitated.report["training"]
    assert [set(e) for e in epochs] == [{"stage", "epoch", "loss", "sqnr_db_val", "agreement_val"}] * 2


def test_every_reader_copes_with_an_imitation(imitated: Outcome) -> None:
    text = (imitated.folder / "README.md").read_text()
    last = imitated.report["accuracy"][-1]
    assert "| stage | agreement | SQNR (dB) | samples |" in text
    assert f"| integerise | {last['agreement']:.2%} | {last['sqnr_db']:#.4g} | 30 (val) |" in text
    page = (imitated.folder / "report.html").read_text(encoding="utf-8")
    assert f"{last['sqnr_db']:.1f} dB" in page
    assert "Like the float network" in page
    assert "SQNR (dB) on val" in page
    assert telling(imitated.metrics("integerise")[-1].values) == f"SQNR (dB) {last['sqnr_db']:#.4g}"


def test_a_network_far_from_the_float_one_is_warned_of(imitated: Outcome) -> None:
    far = imitated.report["accuracy"][-1]["sqnr_db"] < 20
    assert far  # untrained ternary weights
    assert [w for w in imitated.report["warnings"] if "more than a tenth of the signal" in w]


@pytest.mark.parametrize("end", ["relu", "add", "max_pool", "average_pool", "global_pool", "flat_pool", "flat_map"])
def test_networks_that_end_in_something_else_than_a_layer(end: str, tmp_path: Path) -> None:
    b = ModelBuilder((3, SIDE, SIDE), seed=6)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False)))
    if end == "add":
        y = b.add(y, b.conv(y, 8, pads=(1, 1, 1, 1)))
    elif end in ("max_pool", "average_pool"):
        y = b.pool("MaxPool" if end == "max_pool" else "AveragePool", y, (2, 2), stride=(2, 2))
    elif end in ("global_pool", "flat_pool"):
        y = b.global_pool(y)
    if end.startswith("flat"):
        y = b.flatten(y)
    outcome = quantise(b.build(y), {"x_train": samples(40, 3, SIDE, SIDE)}, tmp_path, task="imitation")
    assert outcome.report["accuracy"][-1]["sqnr_db"] > 20
    assert len(outcome.report["verification"]["executions"]) == 6
    rejected = {d: {f["rule"] for f in fs if f["severity"] == "rejected"} for d, fs in outcome.report["checks"].items()}
    # DORY wants a clip at the end; what a pool gives is not clipped, and the report warns of it.
    last = {"dory.last-node"} if end in ("max_pool", "flat_pool") else set()
    assert rejected == {"htvm": set(), "dory": last}
    assert bool([w for w in outcome.report["warnings"] if "dory.last-node" in w]) == bool(last)


def test_labels_in_the_wrong_shape_are_refused_by_a_job(tmp_path: Path) -> None:
    x, y = spots(20, 0)
    with pytest.raises(InvalidDataset, match=r"y_train has the shape \(20, 1\).*\(samples, 2\)"):
        quantise(pose(), {"x_train": x, "y_train": y[:, :1]}, tmp_path, task="regression")


def test_the_notebook_takes_both_tasks(tmp_path: Path) -> None:
    onnx.save(embedding(), tmp_path / "m.onnx")
    x = samples(40, 16)
    for task, arrays in (("imitation", {"x_train": x}), ("regression", {"x_train": x, "y_train": samples(40, 6)})):
        result = quantise_in_notebook(tmp_path / "m.onnx", arrays, tmp_path / task, task=task)
        assert result.report["spec"]["task"] == task
        assert result.report["accuracy"][-1]["stage"] == "integerise"
