"""`report.json`: what was measured and done. Nothing is claimed here that was not measured in this job."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from dianaq import __version__
from dianaq.events import MetricsBody, Stage
from dianaq.spec import JobSpec
from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.graph import Edit
from dianaq_quant.modules.exact import Requantisation
from dianaq_quant.modules.integer import IntegerAnalogConv2d
from dianaq_quant.targets.diana import FLOAT32_EXACT_LIMIT
from dianaq_quant.training.tasks import Figures
from dianaq_quant.verify import Verification

FORMAT = 1
"""Version of the report's structure; raised when a reader of the former one would misread it."""


@dataclass
class Report:
    """The report as it grows along the pipeline."""

    spec: JobSpec
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)
    edits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remedies: list[dict[str, Any]] = field(default_factory=list)
    """What the exported networks were rewritten to, per compiler, and what could not be."""
    timings: dict[str, float] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    interface: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, dict[str, str]] = field(default_factory=dict)
    """By exported file, the user's layer that each of its tensors belongs to."""
    verification: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By dialect, what its contract's check found in the written file."""
    samples: dict[str, int] = field(default_factory=dict)
    noise_sweep: list[dict[str, Any]] = field(default_factory=list)
    started_from: dict[str, Any] | None = None
    """The checkpoint that the job started from: its iteration, its file's sha256, the versions that wrote it."""

    def add_accuracy(self, stage: Stage, split: str, measured: Figures) -> None:
        """The figures of a stage's network on a split."""
        self.accuracy.append({"stage": stage, "split": split, "samples": measured.samples, **measured.values})

    def add_epoch(self, metrics: MetricsBody) -> None:
        """A training epoch's figures."""
        self.training.append({"stage": metrics.stage, "epoch": metrics.epoch, **metrics.values})

    def add_edits(self, stage: Stage, edits: Sequence[Edit]) -> None:
        """What a stage's editors did and passed over."""
        self.edits += [{"stage": stage, **asdict(edit)} for edit in edits]

    def add_remedies(self, dialect: str, edits: Sequence[Edit]) -> None:
        """What the remedies for a compiler did and passed over."""
        self.remedies += [{"dialect": dialect, **asdict(edit)} for edit in edits]

    def add_verification(self, verification: Verification) -> None:
        """What was compared."""
        self.verification = asdict(verification)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "format": FORMAT,
            "spec": self.spec.model_dump(mode="json", by_alias=True),
            "seed": self.spec.recipe.seed,
            "versions": {
                "dianaq": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
                "numpy": np.__version__,
            },
            "started_from": self.started_from,
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "samples": self.samples,
            "accuracy": self.accuracy,
            "training": self.training,
            "noise_sweep": self.noise_sweep,
            "interface": self.interface,
            "layers": self.layers,
            "tensors": self.tensors,
            "edits": self.edits,
            "remedies": self.remedies,
            "notes": self.notes,
            "verification": self.verification,
            "checks": self.checks,
            "timings": {stage: round(seconds, 3) for stage, seconds in self.timings.items()},
        }


def describe_layers(network: IntegerNetwork, scales: Mapping[str, float | Requantisation]) -> list[dict[str, Any]]:
    """One entry per exported operation.

    Args:
        scales: per layer name, its requantisation or (where nothing is requantised) its output scale.
    """
    entries: list[dict[str, Any]] = [
        {
            "name": "input",
            "operation": "quantise",
            "shape": list(network.input_shape),
            "range": [network.entrance.qrange.lo, network.entrance.qrange.hi],
            "scale": network.entrance.scale,
        }
    ]
    return entries + [_describe(layer, scales) for layer in network.layers]


def _describe(layer: Layer, scales: Mapping[str, float | Requantisation]) -> dict[str, Any]:
    module, scale = layer.module, scales.get(layer.name)
    entry: dict[str, Any] = {
        "name": layer.name,
        "original": layer.original,
        "operation": type(module).__name__.removeprefix("Integer"),
        "inputs": list(layer.inputs),
        "shape": list(layer.shape),
    }
    if isinstance(scale, Requantisation):
        entry |= {
            "core": "analog" if isinstance(module, IntegerAnalogConv2d) else "digital",
            "scale": scale.out_scale,
            "input_scale": scale.in_scale,
            "shift": scale.shift,
            "range": [scale.qrange.lo, scale.qrange.hi],
        }
    elif scale is not None:
        entry["scale"] = scale
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and isinstance(scale, Requantisation):
        bound = float(module.bound)  # type: ignore[arg-type]
        if isinstance(module, IntegerAnalogConv2d):
            entry |= {
                "adc_gain": module.gain,
                "row_tiles": module.tiles.count,
                "k_range": [int(module.k.min()), int(module.k.max())],
                "l_range": [int(module.l.min()), int(module.l.max())],
                "zero_weights": round(float((weight == 0).double().mean()), 4),
            }
        else:
            entry["weight_scale"] = scale.weight_scale
        entry |= {
            "weight_range": [int(weight.min()), int(weight.max())],
            "weight_shape": list(weight.shape),
            "accumulator_bound": bound,
            "float32_exact": bound < FLOAT32_EXACT_LIMIT,
        }
    return entry
