"""The figures of a downloaded bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dianaq.cli.tables import table
from dianaq.schemas.figures import FIGURES, figures_of, written


def measurements(bundle: Path) -> list[dict[str, Any]]:
    """What the bundle's report says was measured, in the order of the stages: stage, split, samples, and figures."""
    found = json.loads((bundle / "report.json").read_text(encoding="utf-8")).get("accuracy", [])
    return [entry for entry in found if {"stage", "split", "samples"} <= entry.keys()]


def summary(bundle: Path) -> str:
    """The figures per stage as a table, and the bundle's folder."""
    entries = measurements(bundle)
    names = figures_of(entries)
    rows = [
        (entry["stage"], entry["split"], str(entry["samples"]), *(written(name, entry.get(name)) for name in names))
        for entry in entries
    ]
    header = ("stage", "split", "samples", *(FIGURES[name] for name in names))
    return f"{table(header, rows) if rows else 'no labels, no accuracies'}\n\nbundle: {bundle}"
