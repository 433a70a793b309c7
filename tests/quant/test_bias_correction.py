"""Biases are corrected for the mean error of what quantisation does to a layer's accumulator."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, fx

from dianaq_quant.editors.hardware import exact_editors
from dianaq_quant.graph import run_editors
from dianaq_quant.modules.exact import ExactConv2d, ExactLinear
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear, set_mode
from dianaq_quant.training.calibrate import channel_mean, correct_biases
from dianaq_quant.training.data import Split

from .builder import ModelBuilder
from .stages import UNCHANGED, folded_network, plan_of
from .support import modules


def networks() -> tuple[fx.GraphModule, fx.GraphModule, Tensor]:
    """A network before and after quantisation, and data whose mean is not zero."""
    b = ModelBuilder((3, 6, 6), seed=2)
    x = b.relu(b.conv(b.input, 6, pads=(1, 1, 1, 1)))
    # Weights of one sign that all are rounded down: their error does not average out.
    weight = np.full((5, 6, 1, 1), 0.4 / 64)
    weight[0, 0] = 1.0
    x = b.relu(b.conv(x, 5, (1, 1), weight=weight))
    reference, data, _ = folded_network(b.build(b.gemm(b.flatten(x), 4)))
    exact = copy.deepcopy(reference)
    run_editors(exact, exact_editors(plan_of(exact)))
    return reference, exact.eval(), data


def accumulator_means(network: fx.GraphModule, x: Tensor) -> list[Tensor]:
    """Mean of every layer's accumulator in real numbers, per channel, without the rounding constant."""
    found: list[Tensor] = []

    class Run(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Tensor:
            layer = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
            if isinstance(layer, ExactConv2d | ExactLinear):
                steps = channel_mean(layer.accumulate(self.env[n.args[0]])) - layer.requantise.half  # type: ignore[index]
                found.append(steps * layer.requantise.accumulator_scale)
            value: Tensor = super().run_node(n)
            if isinstance(layer, FakeConv2d | FakeLinear):
                found.append(channel_mean(value))
            return value

    with torch.no_grad():
        Run(network).run(x)
    return found


def test_the_mean_of_every_accumulator_becomes_that_of_the_float_network() -> None:
    reference, exact, data = networks()
    set_mode(reference, "bypass")
    wanted = accumulator_means(reference, data)
    before = accumulator_means(exact, data)
    correct_biases(exact, reference, Split(data, None), UNCHANGED)
    after = accumulator_means(exact, data)
    layers = modules(exact, ExactConv2d) + modules(exact, ExactLinear)
    assert len(wanted) == len(after) == len(layers) == 3
    for layer, target, got in zip(layers, wanted, after, strict=True):
        # A bias is rounded to a step of the accumulator.
        assert (got - target).abs().max() <= 0.51 * layer.requantise.accumulator_scale
    assert (before[1] - wanted[1]).abs().max() > 10 * (after[1] - wanted[1]).abs().max()


def test_the_reference_is_left_as_it_was() -> None:
    reference, exact, data = networks()
    before = {k: v.clone() for k, v in reference.state_dict().items()}
    correct_biases(exact, reference, Split(data, None), UNCHANGED)
    assert all(torch.equal(v, before[k]) for k, v in reference.state_dict().items())
    assert {m.mode for m in modules(reference, FakeConv2d)} == {"quantise"}
