"""Whole jobs of autoencoders: with anomaly labels, without any, trained and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dianaq.errors import InvalidDataset, InvalidModel

from .builder import ModelBuilder
from .support import Outcome, quantise

SIDE, VALUES = 6, 36
STAGES = ["float", "fake_quantised", "hardware_mapped", "hardware_exact", "integerise"]


def autoencoder(outputs: int = VALUES) -> onnx.ModelProto:
    """An untrained 36-24-8-24-36 network with BatchNorm."""
    b = ModelBuilder((VALUES,), seed=3)
    y = b.input
    for width in (24, 8, 24):
        y = b.relu(b.batch_norm(b.gemm(y, width, bias=width != 8)))
    return b.build(b.gemm(y, outputs, name="last"))


def stripes(count: int, seed: int) -> np.ndarray:
    """uint8 images (N, 6, 6) with a bright row or column: what is normal."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 40, (count, SIDE, SIDE))
    for image, line, across in zip(x, random.integers(0, SIDE, count), random.random(count) < 0.5, strict=True):
        (image if across else image.T)[line] += 180
    return x.astype(np.uint8)


def noise(count: int, seed: int) -> np.ndarray:
    """uint8 images with as many bright pixels, anywhere: anomalies."""
    x = stripes(count, seed).reshape(count, -1)
    return np.random.default_rng(seed + 1).permuted(x, axis=1).reshape(count, SIDE, SIDE)


def labelled(normal: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in turn, as far as they go, and their anomaly labels."""
    order = np.random.default_rng(0).permutation(len(normal) + len(odd))
    y = np.repeat([0, 1], [len(normal), len(odd)])
    return np.concatenate([normal, odd])[order], y[order].astype(np.uint8)


ADAM = {"optimiser": "adam", "batch_size": 32}
TRAINED: dict[str, Any] = {
    "task": "reconstruction",
    "preprocessing": {"mean": [0.5], "std": [0.5]},
    "recipe": {
        "float": {**ADAM, "epochs": 25, "learning_rate": 0.01},
        "hardware_mapped": {**ADAM, "epochs": 2, "learning_rate": 0.001, "distillation": 0.5},
        "hardware_exact": {**ADAM, "epochs": 2, "learning_rate": 0.0003, "distillation": 1.0, "averaging": 0.9},
    },
}


def data() -> dict[str, np.ndarray]:
    x_train, y_train = labelled(stripes(600, 0), noise(40, 1))
    x_test, y_test = labelled(stripes(100, 2), noise(100, 3))
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A job that trains on the normal samples, and tells anomalies by their error."""
    return quantise(autoencoder(), data(), tmp_path_factory.mktemp("job"), **TRAINED)


def test_the_integer_network_tells_anomalies_as_the_float_one_does(trained: Outcome) -> None:
    entries = trained.report["accuracy"]
    assert [e["stage"] for e in entries] == STAGES
    assert all(set(e) == {"stage", "split", "samples", "mse", "auc"} for e in entries)
    assert {(e["split"], e["samples"]) for e in entries} == {("test", 200)}
    auc = {e["stage"]: e["auc"] for e in entries}
    assert auc["float"] > 0.9
    assert auc["integerise"] == auc["hardware_exact"] >= auc["float"] - 0.02
    assert entries[-1]["mse"] < 1.2 * entries[0]["mse"]
    assert trained.report["samples"] == {"train": 540, "val": 60, "test": 200, "calibration": 512}


def test_the_exported_network_has_the_reported_figures(trained: Outcome) -> None:
    x = ((data()["x_test"].reshape(-1, VALUES) / np.float32(255) - 0.5) / 0.5).astype(np.float32)
    session = onnxruntime.InferenceSession(trained.folder / "htvm/model.onnx", providers=["CPUExecutionProvider"])
    outputs = np.concatenate([session.run(None, {"input": sample[None]})[0] for sample in x])
    error = ((outputs.astype(np.float64) - x) ** 2).mean(1)
    odd = data()["y_test"] == 1
    assert error[~odd].mean() == pytest.approx(trained.report["accuracy"][-1]["mse"], rel=1e-5)
    pairs = error[odd][:, None] - error[~odd]
    area = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert area == pytest.approx(trained.report["accuracy"][-1]["auc"], abs=1e-9)


def test_events_name_the_figures_and_their_split(trained: Outcome) -> None:
    epochs = trained.metrics("float")
    assert set(epochs[0].values) == {"loss", "mse_val"}
    assert set(epochs[-1].values) == {"mse_test", "auc_test"}
    assert set(trained.metrics("hardware_exact")[0].values) == {"loss", "mse_val", "objective_val"}


def test_the_bundles_readme_has_the_figures_and_says_what_they_are(trained: Outcome) -> None:
    text = (trained.folder / "README.md").read_text()
    last = trained.report["accuracy"][-1]
    assert "| stage | MSE | AUC | samples |" in text
    assert f"| integerise | {last['mse']:#.4g} | {last['auc']:#.4g} | 200 (test) |" in text
    assert "not labelled as anomalies" in text
    assert "ROC" in text


def test_distillation_and_figures_need_no_labels(tmp_path: Path) -> None:
    recipe = {"hardware_exact": {**ADAM, "epochs": 1, "learning_rate": 1e-4, "distillation": 1.0}}
    outcome = quantise(autoencoder(), {"x_train": stripes(80, 0)}, tmp_path, task="reconstruction", recipe=recipe)
    entries = outcome.report["accuracy"]
    assert [e["stage"] for e in entries] == STAGES
    assert all(set(e) == {"stage", "split", "samples", "mse"} and e["split"] == "val" for e in entries)
    text = (outcome.folder / "README.md").read_text()
    assert "| stage | MSE | samples |" in text
    assert "AUC" not in text


def test_a_convolutional_network_gives_an_image_back(tmp_path: Path) -> None:
    b = ModelBuilder((1, SIDE, SIDE), seed=4)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False)))
    model = b.build(b.conv(y, 1, pads=(1, 1, 1, 1)))
    arrays = {"x_train": stripes(120, 0), "x_test": stripes(30, 1)}
    adam = {**ADAM, "epochs": 40, "learning_rate": 0.02}
    outcome = quantise(model, arrays, tmp_path, task="reconstruction", recipe={"float": adam})
    mse = {e["stage"]: e["mse"] for e in outcome.report["accuracy"]}
    spread = (stripes(30, 1) / 255).var()
    assert mse["float"] < spread / 5
    assert mse["integerise"] < 1.2 * mse["float"]


@pytest.mark.parametrize(
    ("model", "arrays", "error", "words"),
    [
        (autoencoder(35), {"x_train": stripes(4, 0)}, InvalidModel, ["(batch, 35)", "(batch, 36)", "as many values"]),
        (
            autoencoder(),
            {"x_train": stripes(4, 0), "x_test": stripes(2, 1), "y_test": np.array([0, 7])},
            InvalidDataset,
            ["y_test", "7", "0 (normal) or 1 (anomaly)"],
        ),
        (
            autoencoder(),
            {"x_train": stripes(4, 0), "y_train": np.ones(4, dtype=int)},
            InvalidDataset,
            ["y_train", "all 4", "normal"],
        ),
    ],
    ids=["output", "label", "anomalies-alone"],
)
def test_refusals(
    model: onnx.ModelProto, arrays: dict[str, np.ndarray], error: type[Exception], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        quantise(model, arrays, tmp_path, task="reconstruction")
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (tmp_path / "bundle").exists()
