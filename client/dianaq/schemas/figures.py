"""What the measured figures are called and how they are written, wherever people read them. Needs nothing installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FIGURES = {
    "top1": "accuracy",
    "top5": "top-5",
    "loss": "loss",
    "mse": "MSE",
    "mae": "MAE",
    "r2": "R²",
    "auc": "AUC",
    "agreement": "agreement",
    "sqnr_db": "SQNR (dB)",
}
"""The figures of a report's entries, in the order in which they are shown, and what people call them."""

SHARES = ("top1", "top5", "accuracy", "agreement")
"""Shares, written in percent; events call `top1` `accuracy`. An AUC is a probability, which nobody writes so."""

SPLITS = ("val", "test")
"""The splits that figures are measured on, as the names of events end in them."""


def figures_of(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The figures that any entry of a report has, in the order in which they are shown."""
    entries = list(entries)
    return [name for name in FIGURES if any(name in entry for entry in entries)]


def parted(key: str) -> tuple[str, str | None]:
    """An event's name of a figure as figure and split: `sqnr_db_test` is `sqnr_db` on `test`, `loss` on none."""
    figure, _, split = key.rpartition("_")
    return (figure, split) if split in SPLITS else (key, None)


_TELLING = ("accuracy", "auc", "mse", "sqnr_db")


def telling(values: Mapping[str, float]) -> str | None:
    """Of a stage's figures as events name them, the most telling one on the most telling split, as text."""
    for figure in _TELLING:
        for split in reversed(SPLITS):
            if (value := values.get(f"{figure}_{split}")) is not None:
                return written(figure, value) if figure == "accuracy" else f"{FIGURES[figure]} {written(figure, value)}"
    return None


def written(name: str, value: float | None) -> str:
    """A figure as text: shares in percent, others to four significant digits; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.2%}" if name in SHARES else f"{value:#.4g}"
