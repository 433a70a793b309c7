"""What an iteration is trained on: the labels, the float network's outputs, or both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from dianaq_quant.training.data import Data, batches
from dianaq_quant.training.evaluate import evaluate


@dataclass(frozen=True)
class Figure:
    """A network's figures on the validation split; the larger the `key`, the better the network."""

    key: tuple[float, ...]
    values: dict[str, float]


@dataclass(frozen=True)
class Objective:
    """`(1 - distillation) * cross-entropy(labels) + distillation * KL(teacher || network)`.

    Args:
        distillation: share of the teacher, in 0..1.
        teacher: the float network, in evaluation mode; needed where its share is not 0.
    """

    distillation: float
    teacher: fx.GraphModule | None

    def __call__(self, logits: Tensor, x: Tensor, labels: Tensor | None) -> Tensor:
        """The loss of a batch: logits (N, classes) for inputs x, labels (N,) unless only the teacher counts."""
        loss = torch.zeros((), device=logits.device)
        if self.distillation < 1:
            assert labels is not None, "checked before the job started"
            loss = loss + (1 - self.distillation) * F.cross_entropy(logits, labels)
        if self.distillation > 0:
            loss = loss + self.distillation * self._divergence(logits, x)
        return loss

    def figure(self, network: fx.GraphModule, data: Data) -> Figure:
        """Measure a network on the validation split, in evaluation mode; the network's mode is restored."""
        assert data.val is not None
        values = {}
        key: tuple[float, ...] = ()
        if data.val.y is not None:
            measured = evaluate(network, data.val, data.normalise)
            values = {"accuracy_val": measured.top1, "loss_val": measured.loss}
            key = (measured.top1, -measured.loss)
        if self.distillation > 0:
            training = network.training
            network.eval()
            with torch.no_grad():
                inputs = ((data.normalise(x), y) for x, y in batches(data.val))
                losses = [float(self(network(x), x, y)) * len(x) for x, y in inputs]
            network.train(training)
            values["objective_val"] = sum(losses) / len(data.val)
            key = (-values["objective_val"],)
        return Figure(key, values)

    def _divergence(self, logits: Tensor, x: Tensor) -> Tensor:
        assert self.teacher is not None, "the pipeline keeps the float network"
        with torch.no_grad():
            target = F.log_softmax(self.teacher(x), 1)
        return F.kl_div(F.log_softmax(logits, 1), target, log_target=True, reduction="batchmean")
