"""What a network is for, and all that follows from it: the loss, the teacher's share of it, and the figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dianaq.schemas.spec import TaskName
from dianaq_quant.training.batch import Batch

Answers = tuple[Tensor, Tensor, Tensor | None]
"""A network's outputs for a batch, its inputs, and the labels (N,) if there are any."""

TOP = 5
"""Top-5 is the field's second figure of a classifier (Russakovsky et al., 2015); with five classes or fewer it says
nothing."""


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


class Classification(Task):
    """The largest of the outputs names the class: cross-entropy, top-1 and (with more than 5 classes) top-5."""

    needs_labels = True
    labels_anomalies = False

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the labels; of mixed samples that of both labels, by their shares (Zhang et al., 2018)."""
        assert batch.labels is not None, "checked before the job started"
        if batch.mixed is None:
            return F.cross_entropy(outputs, batch.labels)
        assert batch.mixed.labels is not None, "as many as the batch has"
        own, other = (F.cross_entropy(outputs, y, reduction="none") for y in (batch.labels, batch.mixed.labels))
        return torch.lerp(other, own, batch.mixed.shares).mean()

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the class probabilities (Hinton et al., 2015)."""
        target = F.log_softmax(teacher, 1)
        return F.kl_div(F.log_softmax(outputs, 1), target, log_target=True, reduction="batchmean")

    def measure(self, batches: Iterable[Answers]) -> Figures:
        """`top1`, `top5`, and `loss`, the mean cross-entropy."""
        samples, first, among, loss, classes = 0, 0, 0, 0.0, 0
        for outputs, _, labels in batches:
            assert labels is not None, "splits without labels are not measured"
            samples, classes = samples + len(outputs), outputs.shape[1]
            first += int((outputs.argmax(1) == labels).sum())
            among += int((outputs.topk(min(TOP, classes), 1).indices == labels[:, None]).sum())
            loss += float(F.cross_entropy(outputs, labels, reduction="sum"))
        top5 = {"top5": among / samples} if classes > TOP else {}
        return Figures({"top1": first / samples, **top5, "loss": loss / samples}, samples)

    def rank(self, figures: Figures) -> tuple[float, ...]:
        """By top-1; where that is equal, by the loss."""
        return figures.values["top1"], -figures.values["loss"]


class Reconstruction(Task):
    """The output gives the network's input back; what it gives back badly is an anomaly. Labels are 1 for those."""

    needs_labels = False
    labels_anomalies = True

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error to the network's input (normalised, augmented); training data hold no anomalies."""
        return F.mse_loss(outputs, batch.x.reshape(outputs.shape))

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Mean squared error to the teacher's output."""
        return F.mse_loss(outputs, teacher)

    def measure(self, batches: Iterable[Answers]) -> Figures:
        """`mse` of the samples that are not labelled as anomalies; with labels of both kinds, `auc`.

        A sample's anomaly score is its mean squared error.
        """
        scores, anomalies = [], []
        for outputs, x, labels in batches:
            error = outputs.double() - x.reshape(outputs.shape).double()
            scores.append(error.square().flatten(1).mean(1))
            anomalies.append(torch.zeros(len(x), dtype=torch.bool) if labels is None else labels == 1)
        score, anomaly = torch.cat(scores), torch.cat(anomalies)
        values = {"mse": float(score[~anomaly].mean())}
        if anomaly.any():
            values["auc"] = area_under_curve(score, anomaly)
        return Figures(values, len(score))

    def rank(self, figures: Figures) -> tuple[float, ...]:
        """By the mean squared error."""
        return (-figures.values["mse"],)


def area_under_curve(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counted half.

    From the rank sum of the positives (Hanley and McNeil, 1982), in float64; tied scores share their mean rank.

    Args:
        scores: (N,), larger where positive is likelier.
        positive: (N,) of bool, with both values.
    """
    _, place, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts.double() - 1) / 2)[place]
    hits = int(positive.sum())
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * (len(scores) - hits)))


CLASSIFICATION = Classification()

TASKS: dict[TaskName, Task] = {"classification": CLASSIFICATION, "reconstruction": Reconstruction()}
"""Tasks by the name that a job specification gives them."""
