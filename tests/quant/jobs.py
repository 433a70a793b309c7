"""A small job that uses all that has a state: noise, averaging, augmentation, frozen weights, Adam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .builder import ModelBuilder

CLASSES = 3

MIXED: dict[str, Any] = {
    "preprocessing": {"mean": [0.5], "std": [0.5]},
    "mapping": {"layers": {"second": "analog"}},
    "recipe": {
        "fake_quantised": {"epochs": 1, "learning_rate": 0.01, "batch_size": 20, "augmentation": "flip"},
        "progressive": [{"range": {"bitwidth": 4, "signed": True}, "epochs": 1}],
        "hardware_mapped": {
            "epochs": 2,
            "learning_rate": 0.01,
            "batch_size": 20,
            "augmentation": "flip",
            "averaging": 0.5,
            "optimiser": "adam",
            "oscillations": "freeze",
            "distillation": 0.5,
            "clip": 1.0,
        },
        "hardware_exact": {"epochs": 2, "learning_rate": 0.001, "batch_size": 20, "oscillations": "damp"},
        "noise": {"gaussian": 0.5, "column_gain": 0.02, "column_offset": 0.1},
        "quantisers": {"activations": {"function": "tqt"}},
    },
}
"""The specification, without model and data. Its trainings have 1, 1, 2 and 2 epochs."""

TRAININGS = ["fake_quantised", "hardware_mapped-1", "hardware_mapped", "hardware_exact"]


def classifier() -> onnx.ModelProto:
    """An untrained classifier of 6 x 6 RGB images, whose layer `second` can be analog."""
    b = ModelBuilder((3, 6, 6), seed=2)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False, name="first")))
    y = b.relu(b.batch_norm(b.conv(y, 8, pads=(1, 1, 1, 1), bias=False, name="second")))
    return b.build(b.gemm(b.flatten(b.global_pool(y)), CLASSES, name="head"))


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images whose class is their brightest channel."""
    random = np.random.default_rng(seed)
    y = random.integers(0, CLASSES, count)
    x = random.integers(0, 120, (count, 6, 6, 3))
    x[np.arange(count), :, :, y] += 100
    return x.astype(np.uint8), y


def write_files(folder: Path) -> None:
    """`model.onnx` and `data.npz`, of 80 samples to train on: 4 steps an epoch."""
    onnx.save(classifier(), str(folder / "model.onnx"))
    arrays = {}
    for name, (count, seed) in {"train": (80, 0), "val": (20, 1), "test": (20, 2)}.items():
        arrays[f"x_{name}"], arrays[f"y_{name}"] = images(count, seed)
    np.savez(folder / "data.npz", **arrays)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
