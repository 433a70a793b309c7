"""The training loop: plain epochs with validation; the best epoch's weights are kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from dianaq.errors import JobCancelled, QuantisationError
from dianaq.events import EventBody, Iteration, MetricsBody, ProgressBody
from dianaq.recipe import Training
from dianaq_quant.modules.quantiser import Scale
from dianaq_quant.training.batch_norm import reestimate_batch_norm
from dianaq_quant.training.data import Data
from dianaq_quant.training.feed import Feed
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.tasks import CLASSIFICATION, Task

Emit = Callable[[EventBody], None]
PROGRESS_EVENTS_PER_EPOCH = 20
"""Progress events are for people: a bar that moves every 5 % of an epoch is alive and costs nothing."""


def train(
    network: fx.GraphModule,
    settings: Training,
    data: Data,
    *,
    task: Task = CLASSIFICATION,
    teacher: fx.GraphModule | None = None,
    iteration: Iteration,
    seed: int,
    emit: Emit,
    should_stop: Callable[[], bool],
) -> None:
    """Train in place and leave the weights (or their moving average) of the epoch with the best validation figure.

    That figure is the task's: the accuracy, or the mean squared error. Where the loss is distilled from a teacher, it
    is that loss on the validation split, because what is wanted then is the teacher's output. The state before training
    competes, unless the validation data were held out of the training data: a network that was trained on them before
    would be preferred for what it remembers. The same seed, device and thread count give the same weights.

    Raises:
        JobCancelled: `should_stop` turned true.
        QuantisationError: the loss is no longer finite.
    """
    if not settings.epochs:
        return
    assert data.val is not None, "checked before the job started"
    data = data.part(settings.samples, seed)
    objective = Objective(settings.distillation, teacher, task)
    feed = Feed(data, settings, seed, iteration)
    optimiser = _optimiser(network, settings)
    steps = feed.steps
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps, settings))
    best = None if data.held_out else objective.figure(network, data)
    best_state = copy.deepcopy(network.state_dict())
    averaged = copy.deepcopy(network) if settings.averaging else network
    taken = 0
    for epoch in range(1, settings.epochs + 1):
        network.train()
        total = 0.0
        for step, batch in enumerate(feed.epoch(epoch), 1):
            loss = objective(network(batch.x), batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rate.step()
            taken += 1
            if settings.averaging:
                _average(averaged, network, settings.averaging, taken)
            total += float(loss.detach())
            if should_stop():
                raise JobCancelled(f"cancelled in epoch {epoch} of {iteration}")
            if step % max(1, steps // PROGRESS_EVENTS_PER_EPOCH) == 0:
                label = f"epoch {epoch}/{settings.epochs}"
                emit(ProgressBody(stage=iteration, label=label, step=step, total=steps))
        if not math.isfinite(total):
            raise QuantisationError(
                f"{iteration}: the loss is not finite in epoch {epoch}; "
                f"a learning rate below {settings.learning_rate} may help",
                param=f"recipe.{iteration}.learning_rate",
            )
        if settings.averaging:
            reestimate_batch_norm(averaged, data)
        measured = objective.figure(averaged, data)
        emit(MetricsBody(stage=iteration, epoch=epoch, values={"loss": total / steps, **measured.values}))
        if best is None or measured.key >= best.key:
            best, best_state = measured, copy.deepcopy(averaged.state_dict())
    network.load_state_dict(best_state)
    network.eval()


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move an average of the parameters towards the present ones; buffers are taken as they are.

    The first steps weigh more, so that the average soon forgets the state before training.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), weight)
    for mean, present in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(present)


def _rate(step: int, steps_per_epoch: int, settings: Training) -> float:
    """Factor on the learning rate: linear warm-up, then constant or a half cosine to zero."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    total = settings.epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))


def _optimiser(network: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Weights decay; biases, BatchNorm parameters (all of one dimension) and scales do not.

    A scale is learned in steps of its own size, which differs by magnitudes between tensors; a power of two is, as it
    is stored as its logarithm.
    """
    scales = [m for m in network.modules() if isinstance(m, Scale) and m.learned]
    apart = {id(m.value) for m in scales}
    parameters = [p for p in network.parameters() if id(p) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    for scale in scales:
        size = 1.0 if scale.power_of_two else float(scale.value.detach().mean())
        unit = size if settings.optimiser == "adam" else size**2
        groups.append({"params": [scale.value], "weight_decay": 0.0, "lr": settings.learning_rate * unit})
    if settings.optimiser == "adam":
        return torch.optim.Adam(groups, lr=settings.learning_rate)
    return torch.optim.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0
    )
