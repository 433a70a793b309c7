"""The optimiser: what is learned in which steps, and how the learning rate moves."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dianaq.schemas.recipe import Training
from dianaq_quant.modules.quantiser import Scale

_ADAPTIVE: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""Optimisers whose step has the length of the learning rate, however long the gradient is."""


def make_optimiser(network: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """The optimiser of a network's parameters, at the rate of the first step.

    Groups: weights, which alone decay; biases and BatchNorm parameters (all of one dimension); thresholds that are
    powers of two, which are stored as their logarithms; and every other learned scale, in steps of its own size, which
    differs by magnitudes between tensors.
    """
    scales = [m for m in network.modules() if isinstance(m, Scale) and m.learned]
    apart = {id(scale.value) for scale in scales}
    others = [p for p in network.parameters() if id(p) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in others if p.dim() <= 1]},
        {"params": [scale.value for scale in scales if scale.power_of_two]},
    ]
    for scale in scales:
        if not scale.power_of_two:
            size = float(scale.value.detach().mean())
            unit = size if settings.optimiser in _ADAPTIVE else size**2
            groups.append({"params": [scale.value], "lr": settings.learning_rate * unit})
    for group in groups:
        group.setdefault("weight_decay", 0.0)
        group.setdefault("lr", settings.learning_rate)
        group[_FULL_RATE] = group["lr"]
    groups = [group for group in groups if group["params"]]
    if settings.optimiser in _ADAPTIVE:
        return _ADAPTIVE[settings.optimiser](groups, foreach=True)
    return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.momentum > 0, foreach=True)


_FULL_RATE = "full_rate"
"""Member of a parameter group: its learning rate where the schedule is at 1."""


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Learn at a part of every group's full rate from now on."""
    for group in optimiser.param_groups:
        group["lr"] = group[_FULL_RATE] * factor


def rate(step: int, steps_per_epoch: int, settings: Training) -> float:
    """Factor on the learning rate of a step, counted from 0: linear warm-up, then constant or a half cosine to zero."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    total = settings.epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))
