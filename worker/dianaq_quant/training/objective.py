"""What an iteration is trained on: the task, the float network's outputs, or both."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx

from dianaq_quant.training.batch import Batch
from dianaq_quant.training.data import Data, Split, batches
from dianaq_quant.training.device import half_precision
from dianaq_quant.training.memory import in_parts
from dianaq_quant.training.task import Answers, Task
from dianaq_quant.training.tasks import CLASSIFICATION


@dataclass(frozen=True)
class Figure:
    """A network's figures on the validation split; the larger the `key`, the better the network."""

    key: tuple[float, ...]
    values: dict[str, float]


@dataclass
class _Known:
    """What the teacher gave for each batch of a split, which stays the same."""

    split: Split | None = None
    targets: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """`(1 - distillation) * the task's loss + distillation * the divergence from the teacher`.

    For a task that imitates, the teacher's outputs are the labels: its loss and its divergence are the same.

    Args:
        distillation: share of the teacher, in 0..1.
        teacher: the float network, in evaluation mode; needed where its share is not 0, or the task imitates it.
    """

    distillation: float
    teacher: fx.GraphModule | None
    task: Task = CLASSIFICATION
    _known: _Known = field(default_factory=_Known, repr=False, compare=False)

    @property
    def asks_teacher(self) -> bool:
        """Whether the loss takes the teacher's outputs."""
        return self.distillation > 0 or self.task.imitates

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of the outputs (N, ...) for a batch, with labels if the task's loss counts and takes them."""
        return self._loss(outputs, batch, self._target(batch.x))

    def _loss(self, outputs: Tensor, batch: Batch, target: Tensor | None) -> Tensor:
        loss = torch.zeros((), device=outputs.device)
        if self.task.imitates:
            return self.task.loss(outputs, replace(batch, labels=target))
        if self.distillation < 1:
            loss = loss + (1 - self.distillation) * self.task.loss(outputs, batch)
        if target is not None:
            loss = loss + self.distillation * self.task.divergence(outputs, target)
        return loss

    def _target(self, x: Tensor) -> Tensor | None:
        """The teacher's outputs, if it has a share."""
        if not self.asks_teacher:
            return None
        assert self.teacher is not None, "the pipeline keeps the float network"
        with torch.no_grad(), half_precision(x.device) if self.task.half_precision else nullcontext():
            target = in_parts(self.teacher, x)
        return target.float()

    def figure(self, network: fx.GraphModule, data: Data) -> Figure:
        """Measure a network on the validation split, in evaluation mode; the network's mode is restored.

        The network runs once over the split, and the teacher once for all the times that the same split is measured.
        """
        split = data.val
        assert split is not None
        if self._known.split is not split:
            self._known.split, self._known.targets = split, {}
        losses: list[tuple[float, int]] = []

        def answers() -> Iterator[Answers]:
            for number, (raw, labels) in enumerate(batches(split)):
                x = data.normalise(raw)
                outputs = in_parts(network, x)
                target = self._known_target(x, number) if self.asks_teacher else None
                if self.task.imitates:  # whose figures are of what its loss is of
                    labels = target
                elif target is not None:
                    losses.append(self._losses(outputs, x, labels, target))
                yield outputs, x, labels

        training = network.training
        network.eval()
        values: dict[str, float] = {}
        key: tuple[float, ...] = ()
        with torch.inference_mode():
            if split.y is not None or not self.task.needs_labels:
                measured = self.task.measure(answers())
                values, key = measured.named("val"), self.task.rank(measured)
            else:
                collections.deque(answers(), maxlen=0)
            if losses:
                values["objective_val"] = sum(loss for loss, _ in losses) / sum(samples for _, samples in losses)
                key = (-values["objective_val"],)
        network.train(training)
        return Figure(key, values)

    def _known_target(self, x: Tensor, number: int) -> Tensor:
        """The teacher's outputs for a batch of the split, which are computed once."""
        target = self._known.targets.get(number)
        if target is None:
            target = self._target(x)
            assert target is not None
            self._known.targets[number] = target
        return target

    def _losses(self, outputs: Tensor, x: Tensor, labels: Tensor | None, target: Tensor) -> tuple[float, int]:
        """The sum of the losses of a batch of the split, and its samples; anomalies do not count."""
        if self.task.labels_anomalies and labels is not None:
            normal = labels != 1
            outputs, x, target, labels = outputs[normal], x[normal], target[normal], labels[normal]
        count = len(x)
        return float(self._loss(outputs, Batch(x, labels), target)) * count if count else 0.0, count
