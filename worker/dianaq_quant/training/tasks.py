"""What a network is for, and all that follows from it: the tasks by their names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from dianaq.schemas.spec import TaskName
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.imitation import Imitation
from dianaq_quant.training.regression import Regression
from dianaq_quant.training.task import Answers, Figures, Task

TOP = 5
"""Top-5 is the field's second figure of a classifier (Russakovsky et al., 2015); with five classes or fewer it says
nothing."""


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

TASKS: dict[TaskName, Task] = {
    "classification": CLASSIFICATION,
    "reconstruction": Reconstruction(),
    "regression": Regression(),
    "imitation": Imitation(),
}
"""Tasks by the name that a job specification gives them."""
