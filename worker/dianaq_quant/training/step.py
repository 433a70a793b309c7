"""One step of training: the gradient of a batch, whole or in parts, and what is done with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.profiler import record_function

from dianaq.errors import QuantisationError
from dianaq.schemas.events import EventBody, Iteration, LogBody
from dianaq.schemas.recipe import Training
from dianaq_quant.modules.adc import converters
from dianaq_quant.training.averaging import Average
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.memory import is_out_of_memory
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.optimiser import make_optimiser, rate, set_rate
from dianaq_quant.training.oscillation import Oscillations
from dianaq_quant.training.output_units import OutputUnits

SMALLEST_PART = 2
"""Samples: BatchNorm has no variance of one."""


class Step:
    """Takes the steps of one training of a network.

    A batch that does not fit into memory is repeated in halves, quarters and so on, whose gradients are added up to
    that of the mean over the whole batch; the rest of the training is done in parts of this size. Only BatchNorm tells
    the difference: it normalises each part by the part's own statistics (and what is random, such as noise and dropout,
    which is new in each part).

    Args:
        network: trained in place.
        objective: gives the loss of a batch.
        settings: the iteration's.
        per_epoch: steps of an epoch.
        iteration: for messages.
        tell: receives what a person should know.

    Attributes:
        taken: steps so far.
        parts: how many a batch is split into.
        optimiser: with the learning rate of the next step.
        average: the moving average of the weights, if there is one.
        oscillations: what is done about oscillating weights.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        objective: Objective,
        settings: Training,
        per_epoch: int,
        iteration: Iteration,
        tell: Callable[[EventBody], None],
    ) -> None:
        self.network, self._objective, self._settings = network, objective, settings
        self._per_epoch, self._iteration, self._tell = per_epoch, iteration, tell
        self._parameters = list(network.parameters())
        self._converters = converters(network)
        self.parts = 1
        self._in_units = OutputUnits(network, objective.task.std)
        self.optimiser = make_optimiser(network, settings)
        self.average = Average(network, settings.averaging) if settings.averaging else None
        average = None if self.average is None else self.average.network
        self.oscillations = Oscillations(network, settings.oscillations, average)
        self._move_to(0)

    @property
    def kept(self) -> fx.GraphModule:
        """The network that is evaluated and kept: the average, if there is one."""
        return self.network if self.average is None else self.average.network

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return self._settings.learning_rate * rate(self.taken, self._per_epoch, self._settings)

    def __call__(self, batch: Batch) -> Tensor:
        """Learn from a batch; the loss before the step, a number.

        Raises:
            QuantisationError: the batch does not fit into memory in the smallest parts either.
        """
        loss = self._gradient(batch)
        with record_function("update"):
            progress = (self.taken + 1) / (self._settings.epochs * self._per_epoch)
            self.oscillations.damp(progress)
            with self._in_units():
                if self._settings.clip is not None:
                    nn.utils.clip_grad_norm_(self._parameters, self._settings.clip, foreach=True)
                self.optimiser.step()
            self.oscillations.freeze(progress)
            self._move_to(self.taken + 1)
            if self.average is not None:
                self.average.update(self.taken)
                self.oscillations.freeze_average()
        return loss

    def restore(self, taken: int, parts: int) -> None:
        """Go on behind so many steps, in so many parts."""
        self.parts = parts
        self._move_to(taken)

    def _move_to(self, taken: int) -> None:
        """Go to a place in the schedule."""
        self.taken = taken
        set_rate(self.optimiser, rate(taken, self._per_epoch, self._settings))

    def _gradient(self, batch: Batch) -> Tensor:
        """The gradient of the mean loss of a batch, in as many parts as it takes; the loss."""
        while True:
            calls = [adc.calls for adc in self._converters]
            try:
                return self._gradient_of_parts(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Only here, where the error is gone, are the tensors that it held free again.
            for adc, count in zip(self._converters, calls, strict=True):
                adc.resume(count)
            self._halve(len(batch))

    def _gradient_of_parts(self, batch: Batch) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        if self.parts == 1:
            return self._backward(batch, 1.0)
        parts = batch.split(self.parts)
        return torch.stack([self._backward(part, len(part) / len(batch)) for part in parts]).sum()

    def _backward(self, batch: Batch, share: float) -> Tensor:
        """Add a share of the gradient of a part; that share of its loss."""
        with record_function("forward"):
            loss = self._objective(self.network(batch.x), batch)
            if share != 1.0:
                loss = loss * share
        with record_function("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _halve(self, batch: int) -> None:
        """Split batches into twice as many parts from now on."""
        self.optimiser.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        smallest = batch // (2 * self.parts)
        if smallest < SMALLEST_PART:
            raise QuantisationError(
                f"{self._iteration}: a step on a batch of {batch} does not fit into memory, not even in parts of "
                f"{batch // self.parts}; it takes a machine with more memory, or a smaller network or input",
                param=f"recipe.{self._iteration}.batch_size",
            )
        self.parts *= 2
        self._tell(
            LogBody(
                level="warning",
                message=f"{self._iteration}: a step on a batch of {batch} does not fit into memory; from now on its "
                f"gradient is added up from {self.parts} parts of {smallest} or more samples, each of which BatchNorm "
                "normalises by its own statistics",
            )
        )
