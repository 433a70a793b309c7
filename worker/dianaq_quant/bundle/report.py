"""`report.json`: what was measured and done. Nothing is claimed here that was not measured in this job."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from dianaq import __version__
from dianaq.schemas.events import MetricsBody, Stage
from dianaq.schemas.ranges import QRange
from dianaq.schemas.report import FORMAT, JobReport
from dianaq.schemas.spec import JobSpec
from dianaq_quant.export.check import Checked
from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.graph import Edit
from dianaq_quant.modules.exact import Requantisation
from dianaq_quant.modules.integer import IntegerAnalogConv2d
from dianaq_quant.profile.cost import layer_cost, layer_memory, totals
from dianaq_quant.profile.fidelity import Fidelity
from dianaq_quant.profile.warnings import warnings_of
from dianaq_quant.profile.weights import histogram
from dianaq_quant.targets.diana import FLOAT32_EXACT_LIMIT
from dianaq_quant.training.task import Figures
from dianaq_quant.verify import Verification


@dataclass
class Report:
    """The report as it grows along the pipeline."""

    spec: JobSpec
    device: str
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)
    edits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remedies: list[dict[str, Any]] = field(default_factory=list)
    """What the exported networks were rewritten to, per compiler, and what could not be."""
    warnings: list[str] = field(default_factory=list)
    """Those of the stages; what follows from the figures is added when the report is written."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, list[float]] | None = None
    """Mean and standard deviation of a regression's training labels, per output."""
    interface: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, dict[str, str]] = field(default_factory=dict)
    """By exported file, the user's layer that each of its tensors belongs to."""
    verification: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By dialect, what its contract's check found in the written file."""
    samples: dict[str, int] = field(default_factory=dict)
    noise_sweep: list[dict[str, Any]] = field(default_factory=list)
    fidelity: Fidelity | None = None
    cost: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    deployed: dict[str, dict[str, Any]] = field(default_factory=dict)
    substitution: dict[str, Any] | None = None
    """What substituted activations cost by themselves."""
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

    def add_network(
        self,
        network: IntegerNetwork,
        scales: Mapping[str, float | Requantisation],
        weight_ranges: Mapping[str, QRange],
    ) -> None:
        """The exported network: its layers one by one, what it costs, and the memory it takes."""
        decibels = self.fidelity.decibels if self.fidelity else {}
        self.layers = describe_layers(network, scales, weight_ranges)
        for entry in self.layers:
            if entry["name"] in decibels:
                entry["sqnr_db"] = decibels[entry["name"]]
        self.cost, self.memory = totals(network)

    def add_deployed(self, dialect: str, network: IntegerNetwork) -> None:
        """The network as a compiler gets it: what it costs there."""
        cost, memory = totals(network)
        self.deployed[dialect] = {"cost": cost, "memory": memory}

    def add_checks(self, checked: Checked, parts: Mapping[str, str]) -> None:
        """What the check of a written file found, and where its compiler runs each layer.

        Args:
            parts: the layer that each of the file's nodes is a part of.
        """
        dialect = str(checked.dialect)
        self.checks[dialect] = checked.as_json()["findings"]
        entries = {entry["name"]: entry for entry in self.layers}
        for layer in checked.layers:
            placement = entries[parts[layer.name]].setdefault("placement", {})
            former = placement.get(dialect, {"offloaded": True, "reasons": []})
            placement[dialect] = {
                "offloaded": former["offloaded"] and layer.offloaded,
                "reasons": [*former["reasons"], *layer.reasons],
            }
        offloaded = sum(layer.offloaded for layer in checked.layers)
        self.deployed[dialect] |= {"layers": len(checked.layers), "offloaded": offloaded}

    def as_model(self) -> JobReport:
        """The report as its readers get it."""
        return JobReport.model_validate(self._plain())

    def as_json(self) -> dict[str, Any]:
        """The report as plain data, written by the model that reads it."""
        return self.as_model().model_dump(mode="json", exclude_unset=True)

    def _plain(self) -> dict[str, Any]:
        sqnr = self.fidelity and {"samples": self.fidelity.samples, "reference": self.fidelity.reference}
        return {
            "format": FORMAT,
            "spec": self.spec.recorded(),
            "seed": self.spec.recipe.seed,
            "versions": versions(),
            "started_from": self.started_from,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "samples": self.samples,
            "cost": self.cost,
            "memory": self.memory,
            "deployed": self.deployed,
            "sqnr": sqnr,
            "accuracy": self.accuracy,
            "training": self.training,
            "substitution": self.substitution,
            "noise_sweep": self.noise_sweep,
            **({"labels": self.labels} if self.labels else {}),
            "interface": self.interface,
            "layers": self.layers,
            "tensors": self.tensors,
            "edits": self.edits,
            "remedies": self.remedies,
            "warnings": [*self.warnings, *warnings_of(self.accuracy, self.layers, self.deployed, self.checks)],
            "notes": self.notes,
            "verification": self.verification,
            "checks": self.checks,
        }


def versions() -> dict[str, str]:
    """What a job is computed with."""
    return {
        "dianaq": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


def describe_layers(
    network: IntegerNetwork,
    scales: Mapping[str, float | Requantisation],
    weight_ranges: Mapping[str, QRange] | None = None,
) -> list[dict[str, Any]]:
    """One entry per exported operation.

    Args:
        scales: per layer name, its requantisation or (where nothing is requantised) its output scale; an operation
            without one passes on the scale and the range of what it reads.
        weight_ranges: per layer name, the integers that its weights could take.
    """
    qrange = network.entrance.qrange
    entries: dict[str, dict[str, Any]] = {
        "input": {
            "name": "input",
            "operation": "quantise",
            "shape": list(network.input_shape),
            "range": [qrange.lo, qrange.hi],
            **_scale("scale", network.entrance.scale),
        }
    }
    memory = layer_memory(network)
    for layer in network.layers:
        passed = {key: value for key, value in entries[layer.inputs[0]].items() if key in _PASSED}
        entry = passed | _describe(layer, scales, weight_ranges or {})
        entry["input_shapes"] = [entries[name]["shape"] for name in layer.inputs]
        if entry["shape"][1:2] == [1] and all(map(_is_line, entry["input_shapes"])):
            entry["operation"] = entry["operation"].replace("2d", "1d")
        entries[layer.name] = entry | layer_cost(layer) | memory[layer.name]
    return list(entries.values())


def _is_line(shape: Sequence[int]) -> bool:
    """Whether a map is that of a 1-d network: of height 1, and wider."""
    return len(shape) == 3 and shape[1] == 1 < shape[2]


_PASSED = ("range", "scale", "scale_log2")
"""What pooling and flattening leave as it is."""


def _scale(name: str, value: float) -> dict[str, Any]:
    """A scale, and its exponent where it is a power of two."""
    mantissa, exponent = math.frexp(value)
    return {name: value, f"{name}_log2": exponent - 1} if mantissa == 0.5 else {name: value}


def _describe(
    layer: Layer, scales: Mapping[str, float | Requantisation], weight_ranges: Mapping[str, QRange]
) -> dict[str, Any]:
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
            **_scale("scale", scale.out_scale),
            **_scale("input_scale", scale.in_scale),
            "shift": scale.shift,
            "range": [scale.qrange.lo, scale.qrange.hi],
        }
    elif scale is not None:
        entry |= _scale("scale", scale)
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
            entry |= _scale("weight_scale", scale.weight_scale)
        entry |= {
            "weight_range": [int(weight.min()), int(weight.max())],
            "weight_shape": list(weight.shape),
            "accumulator_bound": bound,
            "float32_exact": bound < FLOAT32_EXACT_LIMIT,
            "weights": histogram(weight, weight_ranges.get(layer.name)),
        }
    return entry
