"""What a task is to the pipeline: a loss, a divergence, figures, and how they rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dianaq_quant.training.batch import Batch

Answers = tuple[Tensor, Tensor, Tensor | None]
"""A network's outputs for a batch, its inputs, and the labels (N, ...) if there are any; for a task that imitates, the
float network's outputs in their place."""


@dataclass(frozen=True)
class Figures:
    """Figures by name (see `dianaq.schemas.figures`), and on how many samples of the split they were measured."""

    values: Mapping[str, float]
    samples: int

    def named(self, split: str) -> dict[str, float]:
        """The figures as events name them: `accuracy_test` (top-1), `loss_test`, `auc_val`."""
        return {f"{'accuracy' if name == 'top1' else name}_{split}": value for name, value in self.values.items()}


class Task(ABC):
    """What differs between tasks. Everything else in the pipeline is the same for all of them."""

    needs_labels: bool
    """Whether training (unless on a teacher alone) and figures take labels."""
    labels_anomalies: bool
    """Whether labels say what is an anomaly (1); those are measured, never trained on or calibrated with."""
    label_type: type[np.generic] = np.int64
    """What stored labels become."""
    imitates: bool = False
    """Whether the float network's outputs stand in the place of labels, in losses and figures."""
    half_precision: bool = True
    """Whether a teacher may give its outputs in half precision, which is some 8 bits."""
    in_units: bool = False
    """Whether outputs have a unit, which losses are divided by."""
    std: Tensor | None = None
    """What each output (of maps: each channel) differs by, (C,), on the device of the outputs; in losses it counts as
    1. None where the unit of outputs does not matter."""

    def scaled(self, std: Tensor) -> Task:
        """The task for outputs (or labels) of which these are the standard deviations."""
        return self

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of the outputs (N, ...) for a batch of inputs."""

    @abstractmethod
    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """How far a batch of outputs is from a teacher's, both (N, ...)."""

    @abstractmethod
    def measure(self, batches: Iterable[Answers]) -> Figures:
        """The figures of a network that gave these outputs."""

    @abstractmethod
    def rank(self, figures: Figures) -> tuple[float, ...]:
        """The larger, the better the network."""
