"""Random PyTorch modules, each operation in one of its spellings: imported, they compute the same and integerise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.errors import QuantisationError
from dianaq_quant.editors import canonicalise
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import layer_of
from dianaq_quant.importers import import_module

from .support import outputs
from .test_shared_modules import MAP, close, images, integer_and_exact
from .test_trace import scrambled

FAST, MANY = 30, 300
CHANNELS = 4
"""All maps have as many channels, so that any layer may be called anywhere."""

Steps = list[Callable[["Random", Tensor], Tensor]]

LAYERS: Steps = [
    lambda m, x: m.same(x),
    lambda m, x: m.pointwise(x),
    lambda m, x: m.block(x),
    lambda m, x: F.conv2d(x, m.weight, padding=1, groups=CHANNELS),
    lambda m, x: m.bn(x),
    lambda m, x: F.batch_norm(x, m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias, m.training),
]
ACTIVATIONS: Steps = [
    lambda m, x: m.act(x),
    lambda m, x: F.relu(x),
    lambda m, x: x.relu(),
    lambda m, x: x.relu_(),
    lambda m, x: x.clamp(min=0),
    lambda m, x: F.relu6(x),
    lambda m, x: F.hardtanh(x, 0.0, 3.0),
]
NEUTRAL: Steps = [
    lambda m, x: m.drop(x),
    lambda m, x: F.dropout(x, training=m.training),
    lambda m, x: x.contiguous(),
    lambda m, x: x.flatten(1).view(x.shape),
    lambda m, x: F.adaptive_avg_pool2d(x, (x.size(2), x.size(3))),
    lambda m, x: F.max_pool2d(x, 3, stride=1, padding=1),
    lambda m, x: nn.functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1),
]
ADDITIONS: list[Callable[[Tensor, Tensor], Any]] = [
    lambda a, b: a + b,
    lambda a, b: torch.add(a, b),
    lambda a, b: a.add(b),
    lambda a, b: sum([a, b]),
]
HALVES: Steps = [
    lambda m, x: F.max_pool2d(x, 2),
    lambda m, x: F.avg_pool2d(x, (2, 2)),
    lambda m, x: F.adaptive_avg_pool2d(x, (x.shape[2] // 2, x.size(3) // 2)),
    lambda m, x: F.max_pool2d(x, 2, ceil_mode=True),
]
WHOLE: Steps = [
    lambda m, x: x.view(x.size(0), -1),
    lambda m, x: torch.flatten(x, 1),
    lambda m, x: x.reshape(-1, x.size(1) * x.size(2) * x.shape[3]),
]
MEANS: Steps = [
    lambda m, x: x.mean((2, 3)),
    lambda m, x: x.mean(-1).mean(-1),
    lambda m, x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    lambda m, x: x.mean([-1, -2], keepdim=True).squeeze(-1).squeeze(-1),
    lambda m, x: F.avg_pool2d(x, x.size()[2:])[:, :, 0, 0],
]


class Random(nn.Module):
    """Runs a program of steps; its layers are few, and called as often as it happens."""

    def __init__(self, program: list[tuple[str, int]], head: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.program, self.head = program, head
        self.stem = nn.Conv2d(MAP[0], CHANNELS, 3, padding=1)
        self.same, self.pointwise = nn.Conv2d(CHANNELS, CHANNELS, 3, padding="same"), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.bn, self.act, self.drop = nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True), nn.Dropout()
        self.block = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), self.bn, self.act)
        self.weight = nn.Parameter(torch.randn(CHANNELS, 1, 3, 3) / 2)
        self.halvings = min(2, sum(kind == "half" for kind, _ in program))
        side = MAP[1] >> self.halvings
        self.fc = nn.Linear(CHANNELS * side * side if head < len(WHOLE) else CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        seen, left = [x], self.halvings
        for kind, choice in self.program:
            if kind == "add":
                x = ADDITIONS[choice % len(ADDITIONS)](x, seen[choice % len(seen)])
            elif kind == "half" and left:
                x, left, seen = HALVES[choice % len(HALVES)](self, x), left - 1, []
            elif kind != "half":
                steps = {"layer": LAYERS, "activation": ACTIVATIONS, "neutral": NEUTRAL}[kind]
                x = steps[choice % len(steps)](self, x)
            seen.append(x)
        result: Tensor = self.fc([*WHOLE, *MEANS][self.head](self, x))
        return result

    def __repr__(self) -> str:
        return f"Random({self.program}, {self.head})"


@st.composite
def random_modules(draw: st.DrawFn) -> nn.Module:
    kinds = st.sampled_from(["layer", "layer", "activation", "activation", "add", "add", "neutral", "half"])
    program = draw(st.lists(st.tuples(kinds, st.integers(0, 11)), max_size=9))
    head = draw(st.integers(0, len(WHOLE) + len(MEANS) - 1))
    return scrambled(Random(program, head, draw(st.integers(0, 99)))).eval()


def check_import(module: nn.Module) -> None:
    x = images(3)
    expected = outputs(module, x.clone().numpy())
    network = import_module(module, MAP).graph
    close(outputs(network, x.numpy()), expected)
    record_shapes(network, MAP)
    run_editors(network, canonicalise.EDITORS)
    close(outputs(network, x.numpy()), expected)


def check_stages(module: nn.Module) -> None:
    names = {layer_of(node) for node in import_module(module, MAP).graph.graph.nodes}
    try:
        integer, exact = integer_and_exact(module)
    except QuantisationError as error:
        assert error.param in names, error.detail
        return
    x = images(8).numpy()
    assert np.array_equal(outputs(integer, x), outputs(exact, x))
    expected = outputs(module, x.copy())
    error = outputs(integer, x) - expected
    assert np.sqrt(np.mean(error**2)) <= 0.35 * np.sqrt(np.mean(expected**2)) + 1e-6


@settings(max_examples=FAST)
@given(random_modules())
def test_import_keeps_the_function(module: nn.Module) -> None:
    check_import(module)


@settings(max_examples=FAST)
@given(random_modules())
def test_imported_modules_are_integerised_exactly(module: nn.Module) -> None:
    check_stages(module)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(random_modules())
def test_import_keeps_the_function_of_many(module: nn.Module) -> None:
    check_import(module)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(random_modules())
def test_many_imported_modules_are_integerised_exactly(module: nn.Module) -> None:
    check_stages(module)
