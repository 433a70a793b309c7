"""What the jobs of a sweep reached, as one table, and that table as text."""

from __future__ import annotations

import csv as csv_format
import io
import json
from collections.abc import Callable
from typing import Any, get_args

from dianaq.errors import Problem
from dianaq.schemas.events import Stage, State
from dianaq.schemas.figures import telling
from dianaq.schemas.resources import Resource

Point = dict[str, Any]
"""What a grid sets in one job, by path."""


class Costs(Resource):
    """What the integer network of a job costs on the chip, from its report."""

    latency_s: float
    energy_j: float
    weight_bytes: int
    peak_activation_bytes: int
    total_bytes: int


class SweepRow(Resource):
    """A job in a sweep's table."""

    job: str
    state: State
    point: Point
    figures: dict[Stage, dict[str, float]]
    """By stage, as events name them: `accuracy_test`, `loss_val`. Those of `integerise` are the integer network's."""
    costs: Costs | None = None
    """None before the job has succeeded."""
    error: Problem | None = None


class SweepTable(Resource):
    """What the jobs of a sweep reached, in the order of the grid's points."""

    id: str
    paths: list[str]
    rows: list[SweepRow]

    def markdown(self) -> str:
        """For people: the most telling figure of every stage, and the costs."""
        return _markdown(self)

    def csv(self) -> str:
        """For spreadsheets and programs: every figure and every cost, as numbers."""
        return _csv(self)


Table = tuple[list[str], list[list[str]]]
"""The header, and the rows."""

_COSTS: dict[str, Callable[[Costs], float]] = {
    "latency ms": lambda costs: costs.latency_s * 1e3,
    "energy uJ": lambda costs: costs.energy_j * 1e6,
    "memory KiB": lambda costs: costs.total_bytes / 1024,
}
"""What people compare, and the units in which DIANA's networks have numbers of a readable size."""


def readable(table: SweepTable) -> Table:
    """Columns for people: job, point, state, one figure for every stage that any job has measured, costs."""
    stages = [stage for stage in get_args(Stage) if any(telling(row.figures.get(stage, {})) for row in table.rows)]
    costs = _COSTS if any(row.costs for row in table.rows) else {}
    header = ["job", *table.paths, "state", *stages, *costs]
    rows = [
        [
            row.job,
            *(_text(row.point[path]) for path in table.paths),
            row.state,
            *(telling(row.figures.get(stage, {})) or "-" for stage in stages),
            *("-" if row.costs is None else f"{value(row.costs):.4g}" for value in costs.values()),
        ]
        for row in table.rows
    ]
    return header, rows


def _markdown(table: SweepTable) -> str:
    """`readable` in Markdown."""
    header, rows = readable(table)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _csv(table: SweepTable) -> str:
    """Every figure (`<stage>.<figure>`), every cost, and what went wrong; empty where there is none (RFC 4180)."""
    figures = list(
        dict.fromkeys((stage, name) for row in table.rows for stage in row.figures for name in row.figures[stage])
    )
    figures.sort(key=lambda figure: get_args(Stage).index(figure[0]))
    costs = ["latency_s", "energy_j", "weight_bytes", "peak_activation_bytes", "total_bytes"]
    file = io.StringIO()
    write = csv_format.writer(file).writerow
    write(["job", *table.paths, "state", *(f"{stage}.{name}" for stage, name in figures), *costs, "error"])
    for row in table.rows:
        write(
            [
                row.job,
                *(_text(row.point[path]) for path in table.paths),
                row.state,
                *(row.figures.get(stage, {}).get(name) for stage, name in figures),
                *(getattr(row.costs, name, None) for name in costs),
                _error(row),
            ]
        )
    return file.getvalue()


def _text(value: Any) -> str:
    """A value of the grid: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _error(row: SweepRow) -> str | None:
    return None if row.error is None else f"{row.error.type}: {row.error.detail}"
