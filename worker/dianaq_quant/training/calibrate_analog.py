"""What analog layers need before they are trained: the converters' gains, and BatchNorm statistics that fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from dianaq_quant.graph.surgery import calls
from dianaq_quant.modules.fake import FakeAnalogConv2d
from dianaq_quant.targets.diana import ADC, MAX_GAIN_LOG2
from dianaq_quant.training.data import Normalisation, Split

CALIBRATION_SAMPLES = 256
"""Samples that are in memory at once, layer by layer: thousands of pixels of each channel, at 100 MB for ResNets."""

CANDIDATE_SAMPLE = 1 << 18
"""Conversions that the choice of a gain looks at; see `quantisers.observer.SAMPLE_LIMIT`."""


def calibrate_analog(network: fx.GraphModule, split: Split, normalise: Normalisation) -> None:
    """Go through a mapped network once, layer by layer, so that each choice sees those before it.

    Each converter gets the power-of-two gain with the least squared error of its conversions; and each BatchNorm
    after an analog layer the mean and variance that its channels now have, because ternary weights and a converter
    leave little of those that the float network had (without this, the network is at chance).
    """
    if any(True for _ in calls(network, FakeAnalogConv2d)):
        network.eval()
        with torch.no_grad():
            _Calibrate(network).run(normalise(split.take(CALIBRATION_SAMPLES).x))


class _Calibrate(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Tensor:
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, FakeAnalogConv2d):
            _set_gain(module, self.env[n.args[0]])  # type: ignore[index]
        elif isinstance(module, nn.BatchNorm2d):
            source = n.args[0]
            assert isinstance(source, fx.Node)
            if isinstance(self.fetch_attr(str(source.target)), FakeAnalogConv2d):
                _set_statistics(module, self.env[source])
        value: Tensor = super().run_node(n)
        return value


def _set_gain(layer: FakeAnalogConv2d, x: Tensor) -> None:
    """The g that minimises the mean of `(acc - g (clip(floor(acc / g)) + 1/2))^2`."""
    layer.adc.gain.fill_(1.0)
    accumulator = layer.conversions(x).flatten()
    accumulator = accumulator[:: _even_step(len(accumulator) // CANDIDATE_SAMPLE)]
    gains = [2.0**i for i in range(MAX_GAIN_LOG2 + 1)]
    errors = [
        float(((torch.floor(accumulator / g).clamp_(ADC.lo, ADC.hi) + 0.5) * g - accumulator).square().mean())
        for g in gains
    ]
    layer.adc.gain.fill_(gains[errors.index(min(errors))])


def _even_step(least: int) -> int:
    """A step of at least that size which meets all columns of a map: those at its edges sum fewer weights."""
    step = max(1, least)
    while math.gcd(step, 2 * 3 * 5 * 7) > 1:
        step += 1
    return step


def _set_statistics(norm: nn.BatchNorm2d, x: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=min(1, x[:, 0].numel() - 1))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
