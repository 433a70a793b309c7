"""What is learned from calibration data without training: observed ranges and corrected biases."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from dianaq_quant.graph.surgery import Interpreter, calls
from dianaq_quant.modules.exact import ExactAnalogConv2d, ExactConv2d, ExactLinear
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, FakeLinear, set_mode
from dianaq_quant.modules.quantiser import FakeQuantiser, Scale
from dianaq_quant.quantisers import Observer, Seen, choose_scale
from dianaq_quant.training.data import Normalisation, Split, batches

CORRECTION_SAMPLES = 512
"""Samples used to correct biases. They are all in memory, one layer at a time; the standard error of a channel's
mean over 512 samples is a small part of a step."""


def observe(network: fx.GraphModule, split: Split, normalise: Normalisation) -> None:
    """Let every activation quantiser observe a split, with no quantiser active."""
    set_mode(network, "observe")
    network.eval()
    with torch.no_grad():
        for raw, _ in batches(split):
            network(normalise(raw))
    set_mode(network, "quantise")


def forget(network: nn.Module) -> None:
    """Drop what activation quantisers have observed, once the scales are chosen: training has no use for it."""
    for module in network.modules():
        if isinstance(module, FakeQuantiser):
            module.observer = Observer()


def calibrate(network: fx.GraphModule, split: Split, normalise: Normalisation) -> None:
    """Choose the scales of a fake-quantised network, weights and activations, from what it observes."""
    observe(network, split, normalise)
    shared: dict[Scale, list[FakeQuantiser]] = {}
    for _, module in calls(network, FakeQuantiser):
        assert isinstance(module, FakeQuantiser)
        module.fix_offset()
        shared.setdefault(module.scale, []).append(module)
    for scale, quantisers in shared.items():
        ceilings = [q.ceiling / q.qrange.hi for q in quantisers if q.ceiling is not None]
        seen = [Seen.by(q.observer, q.qrange) for q in quantisers]
        chosen = max(ceilings) if ceilings else choose_scale(seen, quantisers[0].spec.strategy, base=scale.base)
        scale.set(chosen, quantisers[0].values_per_sample, quantisers[0].qrange.hi)
    for _, layer in calls(network, FakeConv2d, FakeLinear):
        assert isinstance(layer, FakeConv2d | FakeLinear)
        layer.quantiser.calibrate(layer.weight)
    forget(network)


def channel_mean(x: Tensor) -> Tensor:
    """Mean over everything but the channel, in float64; shape (C,)."""
    return x.double().mean([d for d in range(x.dim()) if d != 1])


class _Means(Interpreter):
    """Sums the channel means of every layer's accumulator, before it is quantised."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.layers = {node for node, _ in calls(network, FakeConv2d, FakeLinear, FakeAnalogConv2d)}
        self.sums: dict[str, Tensor] = {}

    def see(self, node: fx.Node, value: Tensor) -> None:
        if node in self.layers:
            total = channel_mean(value) * len(value)
            self.sums[node.name] = self.sums[node.name] + total if node.name in self.sums else total


class _Correct(fx.Interpreter):
    """Runs an exact network, and corrects each layer before its output is computed."""

    def __init__(self, network: fx.GraphModule, wanted: dict[str, Tensor]) -> None:
        super().__init__(network)
        self.wanted = wanted

    def run_node(self, n: fx.Node) -> Tensor:
        if n.name in self.wanted:
            layer = self.fetch_attr(str(n.target))
            assert isinstance(layer, ExactConv2d | ExactLinear | ExactAnalogConv2d)
            x = self.env[n.args[0]]  # type: ignore[index]
            step = layer.requantise.accumulator_scale
            got = (channel_mean(layer.accumulate(x)) - layer.requantise.half) * step
            layer.bias.add_((self.wanted[n.name] - got).to(layer.bias.dtype))
        value: Tensor = super().run_node(n)
        return value


def correct_biases(exact: fx.GraphModule, reference: fx.GraphModule, split: Split, normalise: Normalisation) -> None:
    """Move each layer's bias so that the mean of its accumulator is that of the unquantised network, per channel.

    Layer by layer, so that each correction sees those before it (Nagel et al., 2019, section 4.2, empirically).

    Args:
        exact: the network to correct, in place.
        reference: the folded network that it was made from; node names agree.
    """
    split = split.take(CORRECTION_SAMPLES)
    set_mode(reference, "bypass")
    means = _Means(reference)
    exact.eval()
    with torch.no_grad():
        for raw, _ in batches(split):
            means.run(normalise(raw))
        wanted = {name: total / len(split) for name, total in means.sums.items()}
        _Correct(exact, wanted).run(normalise(split.x))
    set_mode(reference, "quantise")
