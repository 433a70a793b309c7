"""The real data and networks that benchmarks read, as jobs take them: `../shared/data`, or `$DIANAQ_SHARED_DATA`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from results import ROOT
from torch.nn import functional as F

DATA = Path(os.environ.get("DIANAQ_SHARED_DATA", ROOT.parent / "shared" / "data"))


def network(name: str) -> Path:
    """A trained float network."""
    return DATA / "models" / f"diana_{name}.onnx"


def cifar10(folder: Path) -> Path:
    """The training set, and the first 2,000 test images."""
    train, test = np.load(DATA / "cifar10_train.npz"), np.load(DATA / "cifar10_test_2k.npz")
    path = folder / "cifar10.npz"
    np.savez(path, x_train=train["x"], y_train=train["y"], x_test=test["x"], y_test=test["y"])
    return path


def cifar10_96(folder: Path) -> Path:
    """CIFAR-10 at 96 x 96, bilinear: every 12th training image, and the first 2,000 test images."""
    train, test = np.load(DATA / "cifar10_train.npz"), np.load(DATA / "cifar10_test_2k.npz")
    path = folder / "cifar10_96.npz"
    x_train, x_test = (_enlarged(x) for x in (train["x"][::12], test["x"]))
    np.savez(path, x_train=x_train, y_train=train["y"][::12], x_test=x_test, y_test=test["y"])
    return path


def cifar10_96_whole(folder: Path) -> Path:
    """The same with the whole training set, 1.4 GB."""
    train, test = np.load(DATA / "cifar10_train.npz"), np.load(DATA / "cifar10_test_2k.npz")
    path = folder / "cifar10_96_whole.npz"
    x_train, x_test = (_enlarged(x) for x in (train["x"], test["x"]))
    np.savez(path, x_train=x_train, y_train=train["y"], x_test=x_test, y_test=test["y"])
    return path


def _enlarged(images: np.ndarray) -> np.ndarray:
    """Images (N, 32, 32, 3) at 96 x 96, rounded to uint8; a part at a time, because they pass through float32."""
    parts = (torch.from_numpy(images[i : i + 500]).permute(0, 3, 1, 2).float() for i in range(0, len(images), 500))
    large = (F.interpolate(part, size=(96, 96), mode="bilinear", align_corners=False) for part in parts)
    return np.concatenate([part.round().to(torch.uint8).permute(0, 2, 3, 1).numpy() for part in large])


def speech_commands(folder: Path) -> Path:
    """The official test set is all there is, and it is sorted by class: in random order, 1,024 samples calibrate
    (without labels), the other 3,866 are measured."""
    x, y = _spoken()
    path = folder / "speech_commands.npz"
    np.savez(path, x_train=x[-1024:], x_test=x[:-1024], y_test=y[:-1024])
    return path


def speech_commands_labelled(folder: Path) -> Path:
    """The same with the labels of the 1,024, to train on."""
    x, y = _spoken()
    path = folder / "speech_commands_labelled.npz"
    np.savez(path, x_train=x[-1024:], y_train=y[-1024:], x_test=x[:-1024], y_test=y[:-1024])
    return path


def _spoken() -> tuple[np.ndarray, np.ndarray]:
    """All samples and their labels, in random order."""
    stored = np.load(DATA / "speech_commands_mfcc.npz")
    order = np.random.default_rng(0).permutation(len(stored["y"]))
    return stored["x"][order], stored["y"][order]


def noisy_mnist(folder: Path) -> Path:
    """Label 1 marks anomalies. The first 8,976 are measured; of the last 1,024, the normal ones calibrate."""
    stored = np.load(DATA / "anomaly_mnist_val.npz")
    x, y = stored["x"], stored["y"]
    path = folder / "noisy_mnist.npz"
    np.savez(path, x_train=x[-1024:], y_train=y[-1024:], x_test=x[:-1024], y_test=y[:-1024])
    return path
