"""A profile of one training step, as a Chrome trace."""

from __future__ import annotations

import copy
from itertools import chain, count
from pathlib import Path

import torch
from torch import fx
from torch.profiler import ProfilerActivity, profile

from dianaq.schemas.events import Iteration
from dianaq.schemas.recipe import Training
from dianaq_quant.training.data import Data
from dianaq_quant.training.feed import Feed
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.step import Step
from dianaq_quant.training.task import Task

WARM_UP = 3
"""Steps before the one that is profiled: the first allocate the optimiser's state and choose the convolutions' kernels,
and a third one is like all others."""


def trace_step(
    network: fx.GraphModule,
    settings: Training,
    data: Data,
    path: Path,
    *,
    task: Task,
    teacher: fx.GraphModule | None,
    iteration: Iteration,
    seed: int,
) -> None:
    """Profile one step of training and write it to a file for `chrome://tracing` or Perfetto.

    The steps are those that the training is about to begin with, on a copy of the network that is thrown away, and the
    random numbers are put back: the training is the same without. A trace has times, and differs from run to run.
    """
    data = data.part(settings.samples, seed)
    twin = copy.deepcopy(network).train()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        feed, objective = Feed(data, settings, seed, iteration), Objective(settings.distillation, teacher, task)
        step = Step(twin, objective, settings, feed.steps, iteration, lambda body: None)
        batches = chain.from_iterable(map(feed.epoch, count(1)))
        for _ in range(WARM_UP):
            step(next(batches))
        with profile(activities=activities) as profiler:
            step(next(batches))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
