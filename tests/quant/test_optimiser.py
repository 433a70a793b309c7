"""What is learned in which steps: parameter groups, the schedule, clipping, and when training ends early."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dianaq.schemas.events import EventBody, LogBody, MetricsBody
from dianaq.schemas.recipe import Recipe, Training
from dianaq_quant.modules.quantiser import Scale
from dianaq_quant.training.batch_norm import reestimate_batch_norm
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.objective import Figure, Objective
from dianaq_quant.training.optimiser import make_optimiser, rate, set_rate

from .classes import data, fit, network
from .stages import UNCHANGED


class Learned(nn.Module):
    """A layer of each kind, and thresholds of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.power, self.real = Scale(learned=True, power_of_two=True), Scale(learned=True)
        self.real.set(0.25)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_only_weights_decay_and_scales_learn_in_steps_of_their_size(optimiser: str) -> None:
    module = Learned()
    settings = Training.model_validate({"optimiser": optimiser, "learning_rate": 0.5, "weight_decay": 0.1})
    groups = make_optimiser(module, settings).param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    plain = (0.5, 0.0)
    assert found == {
        id(module.linear.weight): (0.5, 0.1),
        **{id(p): plain for p in (module.linear.bias, module.norm.weight, module.norm.bias, module.power.value)},
        id(module.real.value): (0.5 * (0.25**2 if optimiser == "sgd" else 0.25), 0.0),
    }


def step_of(optimiser: str, gradient: float) -> float:
    """Where a weight of 1 is after one step at a rate of 0.1 with a decay of 0.5."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    settings = Training.model_validate({"optimiser": optimiser, "learning_rate": 0.1, "weight_decay": 0.5})
    layer.weight.grad = torch.full((1, 1), gradient)
    make_optimiser(layer, settings).step()
    return float(layer.weight.detach())


def test_adamw_decays_beside_the_gradient_and_adam_within_it() -> None:
    assert step_of("adamw", 1e-3) == pytest.approx((1 - 0.1 * 0.5) - 0.1, abs=1e-4)
    assert step_of("adam", 1e-3) == pytest.approx(1 - 0.1, abs=1e-4)
    assert step_of("sgd", 1.0) == pytest.approx(1 - 0.1 * 1.9 * 1.5)  # Nesterov: the momentum is ahead by a step


def test_the_rate_rises_and_falls_as_a_part_of_each_groups() -> None:
    settings = Training(epochs=4, learning_rate=0.5, warmup_epochs=1)
    factors = [rate(step, 4, settings) for step in range(17)]
    assert factors[:4] == [0.2, 0.4, 0.6, 0.8]
    assert factors[4] == 1.0
    assert factors[10] == pytest.approx(0.5)
    assert factors[16] == pytest.approx(0.0)
    constant = settings.model_copy(update={"schedule": "constant"})
    assert rate(15, 4, constant) == 1.0
    module = Learned()
    optimiser = make_optimiser(module, settings)
    for _ in range(2):
        set_rate(optimiser, 0.5)
    assert sorted(group["lr"] for group in optimiser.param_groups) == [0.25 * 0.25**2, 0.25, 0.25, 0.25]


def test_clipping_shortens_all_gradients_together() -> None:
    """One step of plain descent at a rate of 1 moves the network by the clipped gradient."""
    for clip, moved in ((1e-3, 1e-3), (None, None)):
        net = network()
        before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
        settings = Training(epochs=1, learning_rate=1.0, momentum=0, batch_size=256, schedule="constant", clip=clip)
        fit(net, data(held_out=True), settings)
        length = float((torch.cat([p.detach().flatten() for p in net.parameters()]) - before).norm())
        assert length == pytest.approx(moved, rel=1e-3) if moved else length > 0.05


def figures(monkeypatch: pytest.MonkeyPatch, *keys: float) -> None:
    """Networks measure as given, the one before training first."""
    found = iter(keys)
    monkeypatch.setattr(Objective, "figure", lambda self, net, data: Figure((next(found),), {"top1": 0.0}))


@pytest.mark.parametrize(
    ("keys", "epochs"),
    [
        ((0.5, 0.4, 0.6, 0.6, 0.5), 4),  # the best is the second epoch, and two do not better it
        ((0.5, 0.4, 0.4), 2),  # none betters the state before
        ((0.5, 0.4, 0.6, 0.5, 0.7, 0.6, 0.6), 6),
        ((0.5, 0.6, 0.7, 0.8, 0.9, 0.8, 0.7), 6),  # two at the very end: it was the last one anyway
    ],
)
def test_a_plateau_ends_training(monkeypatch: pytest.MonkeyPatch, keys: tuple[float, ...], epochs: int) -> None:
    figures(monkeypatch, *keys)
    events = fit(network(), data(), Training(epochs=6, batch_size=64, patience=2, schedule="constant"))
    assert [body.epoch for body in events if isinstance(body, MetricsBody)] == list(range(1, epochs + 1))
    notes = [body.message for body in events if isinstance(body, LogBody)]
    expected = f"float: ended after epoch {epochs} of 6, 2 without a better figure"
    assert notes == ([expected] if epochs < 6 else [])


def test_without_patience_a_plateau_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    figures(monkeypatch, 0.5, *[0.1] * 6)
    events = fit(network(), data(), Training(epochs=6, batch_size=64))
    assert sum(isinstance(body, MetricsBody) for body in events) == 6


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_the_kept_network_has_statistics_of_its_own_weights(averaging: float) -> None:
    net, found = network(), data()
    events: list[EventBody] = fit(net, found, Training(epochs=2, learning_rate=0.1, batch_size=32, averaging=averaging))
    best = max(body.values["accuracy_val"] for body in events if isinstance(body, MetricsBody))
    assert evaluate(net, found.val, UNCHANGED).values["top1"] == best
    kept = {name: value.clone() for name, value in net.state_dict().items() if "running" in name}
    assert kept
    reestimate_batch_norm(net, found)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in kept.items())


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip", 0), ("clip", -1.0), ("patience", 0), ("optimiser", "lion"), ("oscillations", "stop")],
)
def test_impossible_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Training.model_validate({field: value})


def test_a_float_network_has_no_oscillations() -> None:
    with pytest.raises(ValidationError, match="must be 'none', not 'damp'"):
        Recipe.model_validate({"float": {"epochs": 1, "oscillations": "damp"}})
