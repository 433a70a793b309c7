"""The task of a network that gives numbers: a pose, a range, an age."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dianaq_quant.training.batch import Batch
from dianaq_quant.training.moments import Moments
from dianaq_quant.training.task import Answers, Figures, Task


@dataclass(frozen=True)
class Regression(Task):
    """The outputs approach the labels, which are in any unit: losses count errors in standard deviations of the labels.

    A mean that is taken off both the output and the label cancels out, so that the network keeps the labels' unit, and
    only the loss is normalised.
    """

    std: Tensor | None = None
    needs_labels = True
    labels_anomalies = False
    label_type = np.float32
    half_precision = False
    in_units = True

    def scaled(self, std: Tensor) -> Regression:
        return Regression(std)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error to the labels, in standard deviations; mixed samples have labels mixed as they are."""
        assert batch.labels is not None, "checked before the job started"
        labels = batch.labels
        if batch.mixed is not None:
            assert batch.mixed.labels is not None, "as many as the batch has"
            shares = batch.mixed.shares.reshape(-1, *[1] * (labels.dim() - 1))
            labels = torch.lerp(batch.mixed.labels, labels, shares)
        return squared_error(outputs, labels, self.std)

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Mean squared error to the teacher's outputs, in the same standard deviations."""
        return squared_error(outputs, teacher, self.std)

    def measure(self, batches: Iterable[Answers]) -> Figures:
        """`mse` and `mae` over all outputs, in the labels' unit, and `r2`.

        `r2` is the mean of `1 - sum (y - output)^2 / sum (y - mean y)^2` over the outputs (of maps: the channels) whose
        labels vary on the split. Where none does, it is 1 if all are met, else 0.
        """
        labelled = Moments()
        samples, values, absolute = 0, 0, 0.0
        squares = torch.zeros(0, dtype=torch.float64)
        for outputs, _, labels in batches:
            assert labels is not None, "splits without labels are not measured"
            wanted = labels.reshape(outputs.shape)
            error = (outputs.double() - wanted.double()).reshape(len(outputs), outputs.shape[1], -1)
            per_channel = error.square().sum((0, 2))
            squares = per_channel if not samples else squares + per_channel
            absolute += float(error.abs().sum())
            labelled.add(wanted)
            samples, values = samples + len(outputs), values + error.numel()
        return Figures(
            {
                "mse": float(squares.sum()) / values,
                "mae": absolute / values,
                "r2": _determination(squares, labelled.deviations),
            },
            samples,
        )

    def rank(self, figures: Figures) -> tuple[float, ...]:
        """By the mean squared error."""
        return (-figures.values["mse"],)


def squared_error(outputs: Tensor, target: Tensor, std: Tensor | None) -> Tensor:
    """Mean of `((output - target) / std)^2` over a batch (N, C, ...); without `std` (C,), in the outputs' own unit."""
    error = outputs - target.reshape(outputs.shape)
    if std is not None:
        error = error / std.reshape(-1, *[1] * (outputs.dim() - 2))
    return error.square().mean()


def _determination(squares: Tensor, deviations: Tensor) -> float:
    """The coefficient of determination of sums of squares per output, (C,)."""
    varies = deviations > 0
    if not varies.any():
        return 0.0 if squares.any() else 1.0
    return float((1 - squares[varies] / deviations[varies]).mean())
