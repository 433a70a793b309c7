"""What an iteration is trained on: the task, the float network's outputs, or both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dianaq_quant.training.batch import Batch
from dianaq_quant.training.data import Data, batches
from dianaq_quant.training.device import half_precision
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.tasks import CLASSIFICATION, Task


@dataclass(frozen=True)
class Figure:
    """A network's figures on the validation split; the larger the `key`, the better the network."""

    key: tuple[float, ...]
    values: dict[str, float]


@dataclass(frozen=True)
class Objective:
    """`(1 - distillation) * the task's loss + distillation * the divergence from the teacher`.

    Args:
        distillation: share of the teacher, in 0..1.
        teacher: the float network, in evaluation mode; needed where its share is not 0.
    """

    distillation: float
    teacher: fx.GraphModule | None
    task: Task = CLASSIFICATION

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of the outputs (N, ...) for a batch, with labels if the task's loss counts and takes them."""
        loss = torch.zeros((), device=outputs.device)
        if self.distillation < 1:
            loss = loss + (1 - self.distillation) * self.task.loss(outputs, batch)
        if self.distillation > 0:
            assert self.teacher is not None, "the pipeline keeps the float network"
            with torch.no_grad(), half_precision(batch.x.device):
                target = self.teacher(batch.x)
            loss = loss + self.distillation * self.task.divergence(outputs, target)
        return loss

    def figure(self, network: fx.GraphModule, data: Data) -> Figure:
        """Measure a network on the validation split, in evaluation mode; the network's mode is restored."""
        assert data.val is not None
        values: dict[str, float] = {}
        key: tuple[float, ...] = ()
        if data.val.y is not None or not self.task.needs_labels:
            measured = evaluate(network, data.val, data.normalise, self.task)
            values, key = measured.named("val"), self.task.rank(measured)
        if self.distillation > 0:
            val = data.val.normal() if self.task.labels_anomalies else data.val
            training = network.training
            network.eval()
            with torch.no_grad():
                inputs = (Batch(data.normalise(raw), labels) for raw, labels in batches(val))
                losses = [float(self(network(batch.x), batch)) * len(batch.x) for batch in inputs]
            network.train(training)
            values["objective_val"] = sum(losses) / len(val)
            key = (-values["objective_val"],)
        return Figure(key, values)
