"""A step in parts, where a batch does not fit into memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from dianaq.errors import QuantisationError
from dianaq.schemas.events import EventBody, LogBody, MetricsBody
from dianaq.schemas.recipe import Training
from dianaq_quant.training.batch import Batch, Mixture
from dianaq_quant.training.memory import is_out_of_memory
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.step import Step

from .classes import CLASSES, data, fit, separable

CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Memory(nn.Module):
    """Lets pass what is not too large."""

    def __init__(self, samples: int, error: RuntimeError) -> None:
        super().__init__()
        self.samples, self.error = samples, error
        self.seen: list[int] = []
        self.measured: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.seen if self.training else self.measured).append(len(x))
        if len(x) > self.samples:
            raise self.error
        return x


class Leaf(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential)


def network(samples: int, error: RuntimeError = GPU, *, norm: bool = False) -> fx.GraphModule:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(36, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.ReLU()]
    root = nn.Sequential(*layers, Memory(samples, error), nn.Linear(8, CLASSES))
    return fx.GraphModule(root, Leaf().trace(root))


def batch_of(count: int) -> Batch:
    """A batch that was mixed, so that its parts must keep what goes together."""
    split = separable(count, 0)
    assert split.y is not None
    return Batch(split.x, split.y, Mixture(split.y.roll(1), torch.linspace(0, 1, count)))


def memory(net: fx.GraphModule) -> Memory:
    return next(m for m in net.modules() if isinstance(m, Memory))


def step_of(net: fx.GraphModule, told: list[EventBody], **settings: Any) -> Step:
    settings = {"epochs": 4, "batch_size": 24, "learning_rate": 0.1, **settings}
    return Step(net, Objective(0.0, None), Training.model_validate(settings), 1, "float", told.append)


@pytest.mark.parametrize("error", [GPU, RuntimeError(CPU), RuntimeError("not enough memory: you tried to allocate")])
@pytest.mark.parametrize(("fits", "parts"), [(24, 1), (12, 2), (11, 4), (3, 8)])
def test_a_step_in_parts_is_that_of_the_whole_batch(fits: int, parts: int, error: RuntimeError) -> None:
    batch, told = batch_of(24), []
    split, whole = network(fits, error), network(1000)
    steps = [step_of(net, told) for net in (split, whole)]
    for _ in range(2):
        losses = [float(step(batch)) for step in steps]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert [step.parts for step in steps] == [parts, 1]
    for ours, theirs in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert memory(split).seen[-parts:] == [24 // parts] * parts
    assert len(memory(split).seen) == parts.bit_length() - 1 + 2 * parts  # nothing is tried twice
    assert len(told) == parts.bit_length() - 1
    assert all(isinstance(body, LogBody) and body.level == "warning" for body in told)


def test_parts_of_unequal_size_weigh_by_their_samples() -> None:
    batch = batch_of(10)
    split, whole = network(4), network(1000)
    for net in (split, whole):
        step_of(net, [])(batch)
    assert memory(split).seen == [10, 5, 3, 3, 2, 2]
    for ours, theirs in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_event_says_what_becomes_of_batch_norm() -> None:
    told: list[EventBody] = []
    batch = batch_of(24)
    step_of(network(12, norm=True), told)(batch)
    assert isinstance(told[0], LogBody)
    assert "a batch of 24" in told[0].message
    assert "2 parts of 12 or more samples, each of which BatchNorm normalises" in told[0].message


def test_a_part_has_two_samples_at_least() -> None:
    batch = batch_of(24)
    step = step_of(network(1), [])
    with pytest.raises(
        QuantisationError, match="a batch of 24 does not fit into memory, not even in parts of 3"
    ) as caught:
        step(batch)
    assert caught.value.param == "recipe.float.batch_size"
    assert memory(step.network).seen == [24, 12, 6, 3]


def test_other_errors_are_none_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    step = step_of(network(2, RuntimeError("shapes")), [])
    batch = batch_of(8)
    with pytest.raises(RuntimeError, match="shapes"):
        step(batch)


def test_a_training_in_parts_learns_and_says_so() -> None:
    net = network(40, norm=True)
    events = fit(net, data(), Training(epochs=4, learning_rate=0.1, batch_size=64))
    assert [body.message for body in events if isinstance(body, LogBody)] != []
    assert set(memory(net).seen) >= {64, 32}
    assert memory(net).seen.count(64) == 1
    assert max(memory(net).measured) > 40  # the validation split, and then what fits of it
    assert memory(net).measured.count(25) >= 4 * 4
    accuracies = [body.values["accuracy_val"] for body in events if isinstance(body, MetricsBody)]
    assert accuracies[-1] > 0.8
    assert not copy.deepcopy(net).training
