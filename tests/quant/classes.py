"""A small classifier, data that it can learn, and its training."""

from __future__ import annotations

import torch
from torch import fx

from dianaq.schemas.events import EventBody
from dianaq.schemas.recipe import Training
from dianaq_quant.training.data import Data, Split
from dianaq_quant.training.loop import train

from .builder import ModelBuilder
from .stages import UNCHANGED, canonical

CLASSES = 3


def network() -> fx.GraphModule:
    """A small classifier of 6 x 6 maps."""
    b = ModelBuilder((1, 6, 6), seed=1)
    y = b.relu(b.batch_norm(b.conv(b.input, 6, pads=(1, 1, 1, 1), bias=False)))
    return canonical(b.build(b.gemm(b.flatten(b.global_pool(y)), CLASSES)))


def separable(count: int, seed: int) -> Split:
    """Maps whose class is the direction of their gradient: none, across, or down."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (count,), generator=generator)
    ramp = torch.linspace(-1, 1, 6)
    shapes = torch.stack([torch.zeros(6, 6), ramp.sign().expand(6, 6), ramp.sign().reshape(6, 1).expand(6, 6)])
    x = shapes[y] + 0.3 * torch.randn((count, 6, 6), generator=generator)
    return Split(x.unsqueeze(1), y)


def data(*, held_out: bool = False) -> Data:
    """256 samples to train on, 100 to validate with."""
    training = separable(256, 0)
    return Data(training, separable(100, 1), None, training.take(64), UNCHANGED, {}, held_out)


def fit(net: fx.GraphModule, data: Data, settings: Training, **overrides: object) -> list[EventBody]:
    """Train; what it told."""
    events: list[EventBody] = []
    options: dict[str, object] = {"iteration": "float", "seed": 0, "emit": events.append, "should_stop": lambda: False}
    train(net, settings, data, **{**options, **overrides})  # type: ignore[arg-type]
    return events
