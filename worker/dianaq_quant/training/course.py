"""The course of a training so far: its epochs, its best one, what it told, and its curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from dianaq.errors import QuantisationError
from dianaq.schemas.events import EventBody, Iteration, LogBody, MetricsBody
from dianaq.schemas.recipe import Training
from dianaq_quant.training.curves import POINTS, Curves
from dianaq_quant.training.objective import Figure

_BODIES: TypeAdapter[list[EventBody]] = TypeAdapter(list[EventBody])


@dataclass
class Course:
    """What a training knows about itself.

    Attributes:
        epoch: epochs that are over.
        selects: whether the epoch with the best figure is the one that is kept; else the last one is.
        ended: whether it was the last one.
        best: best figure, once there is one.
        kept: state of the network that is kept so far.
        stale: epochs since the figure was last bettered.
        told: events that belong to the result: figures, and what happened on the way.
    """

    settings: Training
    iteration: Iteration
    per_epoch: int
    emit: Callable[[EventBody], None]
    selects: bool = True
    epoch: int = 0
    ended: bool = False
    best: Figure | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0
    told: list[EventBody] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)

    def tell(self, body: EventBody) -> None:
        """Emit an event that belongs to the result."""
        self.told.append(body)
        self.emit(body)

    def step(self, taken: int, loss: Tensor, learning_rate: float) -> None:
        """A step was taken; every so many steps, it is a point of the curves."""
        if taken % math.ceil(self.settings.epochs * self.per_epoch / POINTS) == 0:
            self.curves.add("step/loss", taken, float(loss))
            self.curves.add("step/learning_rate", taken, learning_rate)

    def check(self, loss: float) -> None:
        """Refuse the mean loss of an epoch that is no number.

        Raises:
            QuantisationError: names the learning rate.
        """
        if not math.isfinite(loss):
            raise QuantisationError(
                f"{self.iteration}: the loss is not finite in epoch {self.epoch + 1}; "
                f"a learning rate below {self.settings.learning_rate} may help",
                param=f"recipe.{self.iteration}.learning_rate",
            )

    def check_figure(self, measured: Figure) -> None:
        """Refuse a figure that is no number: nothing would ever better it.

        Raises:
            QuantisationError: names the figures.
        """
        if not all(map(math.isfinite, measured.key)):
            raise QuantisationError(
                f"{self.iteration}: the validation figures after epoch {self.epoch} are {measured.values}: the "
                f"network's outputs are not finite, and a learning rate below {self.settings.learning_rate} may help",
                param=f"recipe.{self.iteration}.learning_rate",
            )

    def end_epoch(self, loss: float, measured: Figure, state: dict[str, Tensor]) -> list[EventBody]:
        """An epoch is over; the events to emit once that is safe.

        Args:
            loss: its mean.
            measured: figure of the network that would be kept.
            state: that network's, copied.
        """
        self.epoch += 1
        self.check_figure(measured)
        former = self.best
        improved = former is None or measured.key >= former.key
        if improved:
            self.best = measured
        if improved or not self.selects:
            self.kept = state
        self.stale = 0 if former is None or measured.key > former.key else self.stale + 1
        values = {"loss": loss, **measured.values}
        for name, value in values.items():
            self.curves.add(f"epoch/{name}", self.epoch * self.per_epoch, value)
        bodies: list[EventBody] = [MetricsBody(stage=self.iteration, epoch=self.epoch, values=values)]
        patience, epochs = self.settings.patience, self.settings.epochs
        self.ended = self.epoch == epochs
        if patience is not None and self.stale >= patience and not self.ended:
            self.ended = True
            message = (
                f"{self.iteration}: ended after epoch {self.epoch} of {epochs}, {self.stale} without a better figure"
            )
            bodies.append(LogBody(message=message))
        self.told += bodies
        return bodies

    def as_plain(self) -> dict[str, Any]:
        """All but the tensors, as JSON can hold it."""
        return {
            "epoch": self.epoch,
            "ended": self.ended,
            "best": self.best and {"key": list(self.best.key), "values": self.best.values},
            "stale": self.stale,
            "told": _BODIES.dump_python(self.told, mode="json"),
            "curves": self.curves.points,
        }

    def restore(self, plain: dict[str, Any], kept: dict[str, Tensor]) -> None:
        """Take up what `as_plain` gave, and emit again what was told."""
        best = plain["best"]
        self.best = best and Figure(tuple(best["key"]), best["values"])
        self.kept = kept
        self.epoch, self.ended, self.stale = plain["epoch"], plain["ended"], plain["stale"]
        self.curves = Curves([(tag, step, value) for tag, step, value in plain["curves"]])
        for body in _BODIES.validate_python(plain["told"]):
            self.tell(body)
