"""What substituted activations cost by themselves: the network before and after, both in float and untrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from dianaq.schemas.figures import FIGURES, written
from dianaq_quant.training.data import Data
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.task import Figures, Task
from dianaq_quant.training.tasks import TASKS

_TOLD = ("top1", "auc", "mse", "mae", "r2")
"""Figures of the sentence; the report has them all."""


@dataclass(frozen=True)
class SubstitutionCost:
    """The network before the substitution beside the one after.

    Args:
        split: what `before` and `after` were measured on; None without labels.
        outputs: how well the one after imitates the one before, on the calibration samples (`Imitation.measure`).
    """

    split: str | None
    before: Figures | None
    after: Figures | None
    outputs: Figures

    def sentence(self) -> str:
        """What it costs, without a full stop."""
        parts = []
        if self.before is not None and self.after is not None:
            values = [(name, self.before.values.get(name), self.after.values.get(name)) for name in _TOLD]
            parts = [
                f"{FIGURES[name]} ({self.split}) goes from {written(name, before)} to {written(name, after)}"
                for name, before, after in values
                if before is not None
            ]
        told = [f"{FIGURES[name]} {written(name, value)}" for name, value in self.outputs.values.items()]
        return "; ".join([*parts, f"beside it, on {self.outputs.samples} calibration samples: {', '.join(told)}"])

    def as_json(self) -> dict[str, Any]:
        """As the report has it."""
        figures = {"before": self.before, "after": self.after}
        return {
            "split": self.split,
            **{name: dict(found.values) if found else None for name, found in figures.items()},
            "samples": self.outputs.samples,
            "outputs": dict(self.outputs.values),
        }


def substitution_cost(
    original: fx.GraphModule, substituted: fx.GraphModule, data: Data, task: Task
) -> SubstitutionCost:
    """Measure both networks, which are where the data are, in evaluation mode."""
    original.eval()
    split, before, after = None, None, None
    if (found := data.report_split) is not None and not task.imitates:
        split = found[0]
        before, after = (evaluate(network, found[1], data.normalise, task) for network in (original, substituted))
    outputs = evaluate(substituted, data.calibration, data.normalise, TASKS["imitation"], original)
    return SubstitutionCost(split, before, after, outputs)
