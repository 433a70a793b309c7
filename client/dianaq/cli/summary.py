"""The figures of a downloaded bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dianaq.cli.tables import table


def accuracies(bundle: Path) -> list[dict[str, Any]]:
    """What the bundle's report says was measured, in the order of the stages: stage, split, samples, top1."""
    found = json.loads((bundle / "report.json").read_text(encoding="utf-8")).get("accuracy", [])
    return [entry for entry in found if {"stage", "split", "samples", "top1"} <= entry.keys()]


def summary(bundle: Path) -> str:
    """Accuracy per stage as a table, and the bundle's folder."""
    rows = [
        (entry["stage"], entry["split"], str(entry["samples"]), f"{entry['top1']:.2%}") for entry in accuracies(bundle)
    ]
    measured = table(("stage", "split", "samples", "accuracy"), rows) if rows else "no labels, no accuracies"
    return f"{measured}\n\nbundle: {bundle}"
