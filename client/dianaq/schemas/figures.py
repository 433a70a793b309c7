"""What the measured figures are called and how they are written, wherever people read them. Needs nothing installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FIGURES = {"top1": "accuracy", "top5": "top-5", "loss": "loss", "mse": "MSE", "auc": "AUC"}
"""The figures of a report's entries, in the order in which they are shown, and what people call them."""

_SHARES = ("top1", "top5")
"""Shares of the samples, written in percent. An AUC is a probability, which nobody writes so."""


def figures_of(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The figures that any entry of a report has, in the order in which they are shown."""
    entries = list(entries)
    return [name for name in FIGURES if any(name in entry for entry in entries)]


_TELLING = ("accuracy_test", "accuracy_val", "auc_test", "auc_val", "mse_test", "mse_val")


def telling(values: Mapping[str, float]) -> str | None:
    """Of a stage's figures as events name them, the most telling one on the most telling split, as text."""
    for key in _TELLING:
        if key in values:
            figure = key.partition("_")[0]
            if figure == "accuracy":
                return written("top1", values[key])
            return f"{FIGURES[figure]} {written(figure, values[key])}"
    return None


def written(name: str, value: float | None) -> str:
    """A figure as text: shares in percent, others to four significant digits; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.2%}" if name in _SHARES else f"{value:#.4g}"
