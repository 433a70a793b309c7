"""The task of a network whose outputs are what its user makes of them: to go on as the float network does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from dianaq_quant.training.batch import Batch
from dianaq_quant.training.decibels import decibels
from dianaq_quant.training.regression import squared_error
from dianaq_quant.training.task import Answers, Figures, Task


@dataclass(frozen=True)
class Imitation(Task):
    """The outputs approach the float network's, whatever they mean: embeddings, heads of a detector, maps.

    All outputs count alike, in one unit, as they share one scale on the chip: the error of the loss is in standard
    deviations of the float network's outputs, all together.
    """

    std: Tensor | None = None
    needs_labels = False
    labels_anomalies = False
    imitates = True
    half_precision = False
    in_units = True

    def scaled(self, std: Tensor) -> Imitation:
        return Imitation(std.square().mean().sqrt().expand(std.shape))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error to the float network's outputs for the same (augmented) inputs."""
        assert batch.labels is not None, "the float network's outputs"
        return squared_error(outputs, batch.labels, self.std)

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """The same as the loss: what a recipe distils and what it does not is one."""
        return squared_error(outputs, teacher, self.std)

    def measure(self, batches: Iterable[Answers]) -> Figures:
        """`sqnr_db`, and (of more than one output) `agreement`.

        `sqnr_db` is `10 log10(sum y^2 / sum (y - output)^2)` over all samples and outputs, y being the float network's;
        144 at most. `agreement` is the share of samples whose largest output is y's largest; of maps (C, H, W) with
        more than one channel, the share of places whose largest channel is y's.
        """
        samples, places, agreed, signal, noise = 0, 0, 0, 0.0, 0.0
        for outputs, _, wanted in batches:
            assert wanted is not None, "the float network's outputs"
            signal += float(wanted.double().square().sum())
            noise += float((wanted.double() - outputs.double()).square().sum())
            samples += len(outputs)
            if outputs.shape[1] > 1:
                same = outputs.argmax(1) == wanted.argmax(1)
                places, agreed = places + same.numel(), agreed + int(same.sum())
        agreement = {"agreement": agreed / places} if places else {}
        return Figures({"sqnr_db": decibels(signal, noise), **agreement}, samples)

    def rank(self, figures: Figures) -> tuple[float, ...]:
        """By the signal to quantisation noise."""
        return (figures.values["sqnr_db"],)
