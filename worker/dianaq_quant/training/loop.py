"""The training loop: plain epochs with validation; the weights of the best epoch, or of the last, are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import fx

from dianaq.errors import JobCancelled
from dianaq.schemas.events import EventBody, Iteration, LogBody, ProgressBody
from dianaq.schemas.recipe import Training
from dianaq_quant.training.batch_norm import reestimate_batch_norm
from dianaq_quant.training.course import Course
from dianaq_quant.training.curves import Curves
from dianaq_quant.training.data import Data
from dianaq_quant.training.feed import Feed
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.resume import restore, store
from dianaq_quant.training.snapshots import Snapshot, digest
from dianaq_quant.training.step import Step
from dianaq_quant.training.task import Task
from dianaq_quant.training.tasks import CLASSIFICATION

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
    snapshot: Snapshot | None = None,
) -> Curves:
    """Train in place and leave the weights (or their moving average) of the epoch with the best validation figure.

    That figure is the task's: the accuracy, the mean squared error, or the likeness to the float network. Where the
    loss is distilled from a teacher, it is that loss on the validation split, because what is wanted then is the
    teacher's output. The state before training competes.

    Validation data that were held out of the training data choose less: a network that was trained on them before
    would be preferred for what it remembers of them, and that is most before training and least after its last epoch.
    The state before training then does not compete, and where the learning rate falls to zero, the last epoch is kept.
    (Not so for tasks whose outputs have a unit: the gradient of a squared error has no bound, as that of cross-entropy
    has, and a training that has left the float network's outputs far behind is worth nothing.)

    BatchNorm statistics are taken anew before a network is measured, and are those of the network that is kept. The
    same seed, device and thread count give the same weights, also when the training goes on from a snapshot.

    Args:
        snapshot: where the training is written down after each epoch, and goes on from if it finds itself there.

    Returns:
        The curves; empty without epochs.

    Raises:
        JobCancelled: `should_stop` turned true.
        QuantisationError: the loss is no longer finite, or a batch does not fit into memory even in small parts.
    """
    if not settings.epochs:
        return Curves()
    assert data.val is not None, "checked before the job started"
    data = data.part(settings.samples, seed)
    objective = Objective(settings.distillation, teacher, task)
    feed = Feed(data, settings, seed, iteration)
    steps = feed.steps
    chooses = task.in_units or not data.held_out
    course = Course(settings, iteration, steps, emit, selects=chooses or settings.schedule == "constant")
    start = "" if snapshot is None else digest(network)
    step = Step(network, objective, settings, steps, iteration, course.tell)
    if snapshot is None or not restore(snapshot, start, course, step):
        if chooses:
            course.best = objective.figure(network, data)
        course.kept = copy.deepcopy(network.state_dict())
        if settings.oscillations != "none" and not step.oscillations.weights:
            course.tell(LogBody(message=f"{iteration}: no layer's weights have few enough integers to oscillate"))
    while not course.ended:
        network.train()
        total = torch.zeros((), dtype=torch.float64)
        for number, batch in enumerate(feed.epoch(course.epoch + 1), 1):
            rate = step.learning_rate
            loss = step(batch)
            total = total.to(loss.device) + loss
            course.step(step.taken, loss, rate)
            if should_stop():
                raise JobCancelled(f"cancelled in epoch {course.epoch + 1} of {iteration}")
            if number % max(1, steps // PROGRESS_EVENTS_PER_EPOCH) == 0:
                label = f"epoch {course.epoch + 1}/{settings.epochs}"
                emit(ProgressBody(stage=iteration, label=label, step=number, total=steps))
        mean = float(total) / steps
        course.check(mean)
        reestimate_batch_norm(step.kept, data)
        measured = objective.figure(step.kept, data)
        told = course.end_epoch(mean, measured, copy.deepcopy(step.kept.state_dict()))
        if snapshot is not None:
            store(snapshot, start, course, step)
        for body in told:
            emit(body)
    network.load_state_dict(course.kept)
    network.eval()
    return course.curves
