"""Weights that jump between two integers: found, damped, frozen where they have been most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from dianaq.schemas.events import LogBody
from dianaq.schemas.quantisers import QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq.schemas.recipe import Training
from dianaq_quant.modules.exact import ExactAnalogConv2d, ExactConv2d, ExactLinear, Requantisation
from dianaq_quant.modules.fake import FakeLinear, fake_linear_op
from dianaq_quant.modules.quantiser import WeightQuantiser
from dianaq_quant.modules.structure import Conv2d
from dianaq_quant.targets.diana import INT8
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.oscillation import DAMPING, FREEZE_ABOVE, MEMORY, Oscillations
from dianaq_quant.training.step import Step

from .classes import data, fit, network
from .test_analog_layers import analog
from .test_step import Leaf

INT4 = QRange(bitwidth=4, signed=True)
TERNARY = QRange.model_validate("ternary")
BINARY = QRange.model_validate("binary")
SCALE = 0.5


def layer(weights: list[float], qrange: QRange = TERNARY) -> FakeLinear:
    """A fully connected layer of one output whose integers are steps of `SCALE`."""
    linear = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([weights]))
    function = "binary" if qrange == BINARY else "ste"
    quantiser = WeightQuantiser(QuantiserSpec(range=qrange, function=function))
    quantiser.scale.set(SCALE)
    fake = fake_linear_op(linear, quantiser)
    assert isinstance(fake, FakeLinear)
    return fake


def move(module: FakeLinear, weights: list[float]) -> None:
    with torch.no_grad():
        module.weight.copy_(torch.tensor([weights]))


def test_a_weight_that_jumps_back_too_often_is_frozen_where_it_has_been_most() -> None:
    """Of four weights: one stays, one oscillates between 0 and 1 and is at 1 three times of four, one wanders in one
    direction, one jumps once and stays. The threshold is that of the end, 0.01."""
    module = layer([0.1, 0.6 * SCALE, -0.9 * SCALE, 0.1])
    found = Oscillations(module, "freeze")
    assert found.weights == 4
    jumps = [0.6, 0.6, 0.6, 0.4]
    frozen_at = None
    for step in range(40):
        move(module, [0.1, jumps[step % 4] * SCALE, (-0.9 + 0.04 * step) * SCALE, (0.4 if step < 20 else 0.6) * SCALE])
        found.freeze(1.0)
        if frozen_at is None and found.frozen:
            frozen_at = step
    # Down, up, down: the second change is the first oscillation, and one of weight 0.01 is not above 0.01.
    assert frozen_at is not None
    assert 4 < frozen_at <= 8
    assert found.state()["frozen"].tolist() == [False, True, False, False]
    assert module.weight.flatten().tolist()[1] == 1 * SCALE


def test_frozen_weights_stay_whatever_the_optimiser_does_and_follow_their_scale() -> None:
    module = layer([0.1, 0.2])
    found = Oscillations(module, "freeze")
    state = found.state()
    found.restore({**state, "frozen": torch.tensor([False, True]), "kept": torch.tensor([0.0, -1.0])})
    module.quantiser.scale.set(0.25)
    move(module, [0.7, 0.9])
    found.freeze(0.5)
    assert module.weight.flatten().tolist() == pytest.approx([0.7, -0.25])
    assert found.frozen == 0.5


def test_frozen_weights_of_the_average_are_where_those_of_the_network_are() -> None:
    module, average = layer([0.1, 0.2]), layer([0.3, -0.2])
    average.quantiser.scale.set(0.25)  # a learned scale has an average of its own
    found = Oscillations(module, "freeze", average)
    found.restore({**found.state(), "frozen": torch.tensor([False, True]), "kept": torch.tensor([0.0, -1.0])})
    found.freeze(0.5)
    found.freeze_average()
    assert average.weight.flatten().tolist() == pytest.approx([0.3, -0.25])


def test_a_step_freezes_what_is_kept_as_well() -> None:
    """However slowly the average follows, and however late a weight was frozen."""
    net = nn.Sequential(nn.Flatten(), layer([0.0] * 4))
    root = fx.GraphModule(net, Leaf().trace(net))
    settings = Training(epochs=1, learning_rate=0.1, averaging=0.999, oscillations="freeze")
    step = Step(root, Objective(0.0, None), settings, 4, "hardware_mapped", lambda body: None)
    state = step.oscillations.state()
    step.oscillations.restore({**state, "frozen": torch.ones(4, dtype=torch.bool), "kept": torch.ones(4)})
    step(Batch(torch.ones(2, 4), torch.zeros(2, dtype=torch.int64)))
    assert step.average is not None
    for network_ in (root, step.kept):
        assert network_.get_submodule("1").weight.flatten().tolist() == [SCALE] * 4


def test_early_it_takes_more_oscillations_than_late() -> None:
    steps = []
    for progress in (0.0, 1.0):
        module = layer([0.3 * SCALE])
        found = Oscillations(module, "freeze")
        for step in range(40):
            move(module, [(0.6 if step % 2 else 0.4) * SCALE])
            found.freeze(progress)
            if found.frozen:
                steps.append(step)
                break
    assert steps[1] < steps[0]
    # Every step oscillates once the second change is seen: 1 - 0.99^n exceeds the thresholds after 5 and 2 of them.
    assert [step - 1 for step in steps] == [5, 2]
    assert (MEMORY, FREEZE_ABOVE) == (0.01, (0.04, 0.01))


@pytest.mark.parametrize(
    ("qrange", "values", "kept"),
    [(BINARY, [-0.1, 0.1, 0.1], 1.0), (BINARY, [-0.1, -0.1, 0.1], -1.0), (INT4, [6.6, 7.9, 9.0], 7.0)],
)
def test_the_integer_is_one_of_the_range(qrange: QRange, values: list[float], kept: float) -> None:
    module = layer([values[0] * SCALE], qrange)
    found = Oscillations(module, "freeze")
    found.restore(found.state() | {"frequency": torch.ones(1), "mean": torch.tensor([sum(values) / 3])})
    move(module, [values[0] * SCALE])
    found.freeze(0.0)
    assert module.weight.flatten().tolist() == [kept * SCALE]


def test_damping_adds_the_gradient_of_its_term() -> None:
    values = torch.tensor([[0.2, 0.3, -0.6, 0.9, -3.0]]) * SCALE
    module = layer(values.flatten().tolist())
    module.weight.grad = torch.ones(1, 5)
    Oscillations(module, "damp").damp(1.0)
    weight = values.clone().requires_grad_()
    integers = torch.tensor([[0.0, 0.0, -1.0, 1.0, -1.0]])
    term = (weight.clamp(-SCALE, SCALE) - SCALE * integers).square().sum()
    (DAMPING * term).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.testing.assert_close(module.weight.grad, 1 + weight.grad)
    assert module.weight.grad[0, -1] == 1  # a clipped weight is not pulled


def test_damping_grows_along_the_training() -> None:
    pulls = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        module = layer([0.3 * SCALE])
        module.weight.grad = torch.zeros(1, 1)
        Oscillations(module, "damp").damp(progress)
        pulls.append(float(module.weight.grad))
    assert pulls[0] == 0
    assert pulls == sorted(pulls)
    assert pulls[2] == pytest.approx(pulls[3] / 2)


def exact(qrange: QRange) -> list[nn.Module]:
    requantise = Requantisation(1.0, 1.0, 0, INT8)
    linear, conv = nn.Linear(3, 2), Conv2d(1, 2, (1, 1), (1, 1), pads=(0, 0, 0, 0))
    return [ExactLinear(linear, qrange, requantise), ExactConv2d(conv, qrange, requantise)]


def test_layers_of_few_levels_of_every_kind_are_looked_after() -> None:
    fake_analog = analog(torch.ones(2, 3, 1, 1), torch.ones(2), 1.0, 1.0)
    exact_analog = ExactAnalogConv2d(
        analog(torch.ones(2, 3, 1, 1), torch.ones(2), 1.0, 1.0), 1.0, Requantisation(1.0, 1.0, 0, INT8), 8
    )
    found: list[tuple[nn.Module, int]] = [(layer([0.0] * 5, INT4), 5), (layer([0.0] * 5, INT8), 0)]
    found += [(fake_analog, 6), (exact_analog, 6)]
    found += [(module, count) for module, count in zip(exact(INT4), (6, 2), strict=True)]
    found += [(module, 0) for module in exact(INT8)]
    for module, weights in found:
        assert Oscillations(module, "freeze").weights == weights, module
        assert Oscillations(module, "none").weights == 0
    bypassed = layer([0.0] * 5)
    bypassed.mode = "bypass"
    assert Oscillations(bypassed, "freeze").weights == 0


@pytest.mark.parametrize("index", range(4))
def test_every_kind_of_layer_is_frozen_on_its_grid(index: int) -> None:
    weights = torch.tensor([[0.2, -0.7, 1.3]])
    modules: list[Any] = [
        layer([0.1, -0.35, 0.65]),
        analog((weights * 0.5).reshape(1, 3, 1, 1), torch.tensor([0.5]), 1.0, 1.0),
        *exact(TERNARY),
    ]
    module = modules[index]
    found = Oscillations(module, "freeze")
    before: Tensor = (module.integer_weight() if index > 1 else module.quantiser.integers(module.weight)).detach()
    found.restore(found.state() | {"frozen": torch.ones(found.weights, dtype=torch.bool)})
    found.freeze(1.0)
    scale = 0.5 if index < 2 else module.requantise.weight_scale
    torch.testing.assert_close(module.weight.detach(), before * scale)


def test_a_training_without_weights_of_few_levels_says_so() -> None:
    for handling, told in (("freeze", True), ("none", False)):
        settings = Training.model_validate({"epochs": 1, "batch_size": 64, "oscillations": handling})
        events = fit(network(), data(), settings)
        assert any(isinstance(body, LogBody) and "few enough integers" in body.message for body in events) is told
