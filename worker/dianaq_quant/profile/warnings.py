"""What whoever deploys a network should look at first, from the figures of its job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dianaq.schemas.figures import FIGURES, written

LARGEST_DROP = 0.01
"""Top-1 accuracy and AUC may fall this far from the float network's before it is a warning: 8-bit networks lose half
a point, ternary ones one or two [published ODiMO checkpoints]."""

ROUNDING = 1e-9
"""What float64 adds to a difference of two figures: 0.87 - 0.86 is no more than a point."""

LARGEST_GROWTH = 1.1
"""The mean squared error may grow by this factor: one decibel and less is within what retraining changes."""

LEAST_SQNR_DB = 20.0
"""Below, the outputs differ from the float network's by more than a tenth of the signal."""

FEWEST_SAMPLES = 500
"""With fewer samples the standard error of an accuracy exceeds a point or so (of 90 %: 1.3 points)."""

MEMORIES = {
    "htvm": {"l2": "the chip's memory (L2)", "l1_tvm": "the activation memory (L1) of Diana_TVM"},
    "dory": {"l2": "the chip's memory (L2)", "l1_soc": "the activation memory (L1) of Diana_SoC"},
}
"""Memories that a dialect's compiler lays the network out in."""

WEIGHT_MEMORIES = {"digital_weights": "the digital core's weight memory", "analog_weights": "the analog array"}


def warnings_of(
    accuracy: Sequence[Mapping[str, Any]],
    layers: Sequence[Mapping[str, Any]],
    deployed: Mapping[str, Mapping[str, Any]],
    checks: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[str]:
    """Sentences without a full stop; empty where nothing stands out.

    Args:
        accuracy, layers, deployed, checks: the report's entries of these names.
    """
    memory = [line for dialect, found in deployed.items() for line in _memory(dialect, found["memory"])]
    return [*_accuracy(accuracy), *_checks(checks), *memory, *_accumulators(layers)]


def _checks(checks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    found = []
    for dialect, findings in checks.items():
        for severity, words in _SEVERE.items():
            rules = dict.fromkeys(str(f["rule"]) for f in findings if f["severity"] == severity)
            if rules:
                found.append(f"{dialect}/model.onnx: {words}, by {', '.join(rules)}")
    return found


_SEVERE = {
    "rejected": "its compiler refuses it",
    "wrong": "its compiler takes it, and the chip computes something else",
}
"""What the severities of findings mean that keep a file from its chip."""


def _accuracy(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return ["accuracy was not measured: the dataset has no labels to measure it on"]
    found = []
    first, last = entries[0], entries[-1]
    if last["stage"] == "integerise" and first["stage"] != "integerise":
        for name in ("top1", "auc", "mse"):
            if name not in first or name not in last:
                continue
            worse = last[name] > LARGEST_GROWTH * first[name] if name == "mse" else first[name] - last[name]
            if worse > LARGEST_DROP + ROUNDING:
                found.append(
                    f"{FIGURES[name]} goes from {written(name, first[name])} ({first['stage']}) to "
                    f"{written(name, last[name])} in the integer network"
                )
    accuracy = "top1" in last or "auc" in last
    subject = "accuracy is that" if accuracy else "the figures are those"
    if last.get("sqnr_db", LEAST_SQNR_DB) < LEAST_SQNR_DB:
        found.append(
            f"the integer network's outputs differ from the float network's by more than a tenth of the signal: "
            f"{last['sqnr_db']:.1f} dB"
        )
    if last["samples"] < FEWEST_SAMPLES:
        count = f"{last['samples']} sample{'s' * (last['samples'] != 1)}"
        small = "below a point or two" if accuracy else "of a few percent"
        found.append(f"{subject} of {count}; differences {small} mean nothing")
    if last["split"] == "val":
        found.append(f"{subject} of validation data, which training may have chosen an epoch by: no test data")
    return found


def _memory(dialect: str, memory: Mapping[str, Any]) -> list[str]:
    found = []
    for name, words in {**MEMORIES[dialect], **WEIGHT_MEMORIES}.items():
        entries = [entry for entry in memory["exceeded"] if entry["memory"] == name]
        if not entries:
            continue
        worst = max(entries, key=lambda entry: int(entry["bytes"]))
        limit = f"{worst['limit']:,} bytes of {words}"
        if worst["layer"] is None:
            found.append(f"{dialect}: weights and activations need {worst['bytes']:,} bytes, more than the {limit}")
        else:
            names = ", ".join(str(entry["layer"]) for entry in entries)
            need = f"up to {worst['bytes']:,} bytes, more than the {limit}"
            found.append(f"{dialect}: {names} need {need}, so that the compiler has to tile")
    return found


def _accumulators(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    wide = [str(layer["name"]) for layer in layers if layer.get("float32_exact") is False]
    if not wide:
        return []
    return [f"{', '.join(wide)}: accumulators may exceed what float32 holds exactly, so that ONNX runtimes may round"]
