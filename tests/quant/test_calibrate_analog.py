"""What calibration gives analog layers: gains of least error, BatchNorm statistics of the data, and thus no chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn

from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.quantisers import Quantisers
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors import fake_quantise, hardware
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.surgery import Interpreter, calls, module_of
from dianaq_quant.modules.fake import FakeAnalogConv2d
from dianaq_quant.training.calibrate import calibrate, observe
from dianaq_quant.training.calibrate_analog import CALIBRATION_SAMPLES, calibrate_analog
from dianaq_quant.training.data import Normalisation, Split

from .builder import ModelBuilder, Tensor
from .stages import TERNARY, UNCHANGED, canonical, exact_network
from .support import modules

MAP = (3, 10, 10)
SAME = (1, 1, 1, 1)
DATA = torch.randn(64, *MAP, generator=torch.Generator().manual_seed(0))


def residual(b: ModelBuilder) -> Tensor:
    x = b.relu(b.batch_norm(b.conv(b.input, 24, pads=SAME, bias=False)))
    for _ in range(2):
        y = b.relu(b.batch_norm(b.conv(x, 24, pads=SAME, bias=False)))
        x = b.relu(b.add(b.batch_norm(b.conv(y, 24, pads=SAME, bias=False)), x))
    return b.gemm(b.flatten(b.global_pool(x)), 5)


def mapped(weights: QRange = TERNARY, default: str = "analog") -> fx.GraphModule:
    b = ModelBuilder(MAP, seed=2)
    network = canonical(b.build(residual(b)), CoreMapping(default=default))
    run_editors(network, fake_quantise.editors(Quantisers(), equalise=False))
    calibrate(network, Split(DATA, None), UNCHANGED)
    observe(network, Split(DATA, None), UNCHANGED)
    run_editors(network, hardware.mapping(weights))
    return network


class _Values(Interpreter):
    """Every node's value."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.values: dict[fx.Node, torch.Tensor] = {}

    def see(self, node: fx.Node, value: torch.Tensor) -> None:
        self.values[node] = value


def values_of(network: fx.GraphModule, x: torch.Tensor) -> dict[fx.Node, torch.Tensor]:
    recorder = _Values(network)
    with torch.no_grad():
        recorder.run(x)
    return recorder.values


def test_statistics_are_those_of_the_data_layer_by_layer() -> None:
    network = mapped()
    calibrate_analog(network, Split(DATA, None), UNCHANGED)
    values = values_of(network, DATA)
    count = 0
    for node, norm in calls(network, nn.BatchNorm2d):
        source = node.all_input_nodes[0]
        assert isinstance(norm, nn.BatchNorm2d)
        if isinstance(module_of(network, source), FakeAnalogConv2d):
            variance, mean = torch.var_mean(values[source], dim=(0, 2, 3))
            torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-6)
            count += 1
    assert count == 4


def test_batch_norms_of_digital_layers_are_left_alone() -> None:
    network = mapped()
    before = modules(network, nn.BatchNorm2d)[0].running_mean.clone()
    calibrate_analog(network, Split(DATA + 3, None), UNCHANGED)
    assert torch.equal(modules(network, nn.BatchNorm2d)[0].running_mean, before)


@pytest.mark.parametrize("weights", [TERNARY, QRange(bitwidth=8, signed=True)], ids=str)
def test_gains_have_the_least_error_of_all_powers_of_two(weights: QRange) -> None:
    network = mapped(weights)
    calibrate_analog(network, Split(DATA, None), UNCHANGED)
    values = values_of(network, DATA)
    gains = set()
    for node, layer in calls(network, FakeAnalogConv2d):
        assert isinstance(layer, FakeAnalogConv2d)
        gain = float(layer.adc.gain)
        with torch.no_grad():
            accumulator = (layer.conversions(values[node.all_input_nodes[0]]) * gain).double()
        assert torch.equal(accumulator, accumulator.round())
        errors = {}
        for exponent in range(16):
            g = 2.0**exponent
            back = ((accumulator / g).floor().clamp(-32, 31) + 0.5) * g
            errors[g] = float((back - accumulator).square().mean())
        assert errors[gain] == pytest.approx(min(errors.values()), rel=1e-3)
        gains.add(gain)
    assert max(gains) > 1


def test_only_so_many_samples_are_looked_at_and_normalised() -> None:
    network, again = mapped(), mapped()
    many = torch.cat([DATA] * 5)[: CALIBRATION_SAMPLES + 40].clone()
    many[CALIBRATION_SAMPLES:] = 1e6
    calibrate_analog(network, Split(many, None), UNCHANGED)
    halved = Normalisation(torch.tensor(0.5), torch.tensor(0.0))
    calibrate_analog(again, Split(2 * many[:CALIBRATION_SAMPLES], None), halved)
    for a, b in zip(modules(network, nn.BatchNorm2d), modules(again, nn.BatchNorm2d), strict=True):
        torch.testing.assert_close(a.running_mean, b.running_mean)
    assert [float(m.adc.gain) for m in modules(network, FakeAnalogConv2d)] == [
        float(m.adc.gain) for m in modules(again, FakeAnalogConv2d)
    ]


def test_a_digital_network_is_left_alone() -> None:
    network = mapped(default="digital")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    calibrate_analog(network, Split(DATA, None), UNCHANGED)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def agreement(network: nn.Module, x: torch.Tensor, expected: np.ndarray) -> float:
    """How well outputs agree over samples: the mean correlation of the classes' deviations from their means."""
    with torch.no_grad():
        got = network(x).double().numpy()
    return float(np.mean([np.corrcoef(got[:, c], expected[:, c])[0, 1] for c in range(got.shape[1])]))


def test_a_post_training_ternary_network_is_not_at_chance() -> None:
    """Without gains and statistics from the data, the outputs have nothing to do with the float network's."""
    b = ModelBuilder(MAP, seed=2)
    model = b.build(residual(b))
    network, data, _ = exact_network(model, CoreMapping(default="analog"))
    float_network = canonical(model)
    with torch.no_grad():
        expected = float_network(data).double().numpy()
    assert agreement(network, data, expected) > 0.5
    uncalibrated = mapped()
    assert abs(agreement(uncalibrated, data, expected)) < agreement(network, data, expected) - 0.2
