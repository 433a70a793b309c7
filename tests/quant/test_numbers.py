"""Figures and losses of regression and imitation, beside the formulas written in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from dianaq.schemas.recipe import Training
from dianaq_quant.training.batch import Batch, Mixture
from dianaq_quant.training.data import Data, Split
from dianaq_quant.training.decibels import CEILING_DB, decibels
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.loop import train
from dianaq_quant.training.moments import Moments
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.tasks import TASKS

from .stages import UNCHANGED

REGRESSION, IMITATION = TASKS["regression"], TASKS["imitation"]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_batches(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.split(3) for tensor in tensors), strict=True))


@pytest.mark.parametrize("shape", [(4,), (1,), (3, 2, 5)])
def test_figures_of_a_regression(shape: tuple[int, ...]) -> None:
    y = drawn(8, *shape) * 300 + 5000
    outputs = y + drawn(8, *shape, seed=1) * 40
    figures = REGRESSION.measure(in_batches(outputs, outputs, y))
    assert figures.samples == 8
    a, b = (t.double().numpy().reshape(8, shape[0], -1) for t in (outputs, y))
    determination = 1 - ((a - b) ** 2).sum((0, 2)) / ((b - b.mean((0, 2), keepdims=True)) ** 2).sum((0, 2))
    assert figures.values == pytest.approx(
        {"mse": ((a - b) ** 2).mean(), "mae": np.abs(a - b).mean(), "r2": determination.mean()}, rel=1e-9
    )
    assert set(figures.named("val")) == {"mse_val", "mae_val", "r2_val"}
    assert REGRESSION.rank(figures) == (-figures.values["mse"],)


def test_labels_of_one_number_need_no_second_dimension() -> None:
    y = drawn(8)
    figures = REGRESSION.measure(in_batches(y.unsqueeze(1) + 0.5, y, y))
    assert figures.values["mse"] == pytest.approx(0.25)
    assert float(REGRESSION.loss(y.unsqueeze(1) + 0.5, Batch(y, y))) == pytest.approx(0.25)


@pytest.mark.parametrize(("error", "expected"), [(0.0, 1.0), (0.25, 0.0)])
def test_the_determination_of_labels_that_never_vary(error: float, expected: float) -> None:
    y = torch.full((8, 2), 0.1)
    assert REGRESSION.measure(in_batches(y + error, y, y)).values["r2"] == expected
    y = torch.stack((y[:, 0], torch.arange(8.0)), 1)
    off = torch.tensor([0.25, 0.0])
    assert REGRESSION.measure(in_batches(y + off, y, y)).values["r2"] == 1.0  # of the output that varies


def test_one_sample_is_measured() -> None:
    y = torch.tensor([[3.0, 4.0]])
    values = REGRESSION.measure([(y + 1, y, y)]).values
    assert values == {"mse": 1.0, "mae": 1.0, "r2": 0.0}


def test_the_loss_counts_in_standard_deviations() -> None:
    y = torch.tensor([[1000.0, 0.001], [3000.0, 0.003]])
    task = REGRESSION.scaled(Moments([y]).std)
    assert task.std is not None
    assert task.std.tolist() == pytest.approx([1000, 0.001])
    off = y + torch.tensor([500.0, 0.002])
    assert float(task.loss(off, Batch(y, y))) == pytest.approx((0.25 + 4) / 2, rel=1e-4)
    assert float(task.divergence(off, y)) == pytest.approx((0.25 + 4) / 2, rel=1e-4)
    maps = REGRESSION.scaled(torch.tensor([2.0, 4.0]))
    assert float(maps.loss(torch.full((1, 2, 3, 3), 4.0), Batch(y, torch.zeros(1, 2, 3, 3)))) == (4 + 1) / 2


def test_mixed_samples_have_mixed_labels() -> None:
    y, shares = drawn(4, 2), torch.tensor([1.0, 0.25, 0.5, 0.0])
    other = drawn(4, 2, seed=1)
    batch = Batch(y, y, Mixture(other, shares))
    expected = y * shares[:, None] + other * (1 - shares[:, None])
    assert float(REGRESSION.loss(expected, batch)) == pytest.approx(0, abs=1e-12)
    flat = Batch(y, y[:, 0], Mixture(other[:, 0], shares))
    assert float(REGRESSION.loss(expected[:, :1], flat)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 4, 4)])
def test_moments_are_those_of_the_whole(shape: tuple[int, ...]) -> None:
    values = drawn(50, *shape) * 7 + 1e6
    moments = Moments(values.split(8))
    flat = values.double().reshape(50, shape[0] if shape else 1, -1).numpy()
    assert moments.mean.numpy() == pytest.approx(flat.mean((0, 2)), rel=1e-12)
    assert moments.std.numpy() == pytest.approx(flat.std((0, 2)), rel=1e-6)


def test_what_never_changes_is_measured_by_the_others_or_by_its_size() -> None:
    values = torch.stack((torch.full((4,), 7.0), torch.tensor([0.0, 2.0, 0.0, 2.0])), 1)
    assert Moments([values]).std.tolist() == pytest.approx([math.sqrt(0.5), 1.0])
    assert Moments([values[:, :1]]).std.tolist() == [7.0]
    assert Moments([torch.zeros(3, 2)]).std.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(5,), (5, 3, 3), (1,), (1, 4, 4)])
def test_figures_of_an_imitation(shape: tuple[int, ...]) -> None:
    y = drawn(8, *shape)
    outputs = y + drawn(8, *shape, seed=1)
    values = IMITATION.measure(in_batches(outputs, outputs, y)).values
    a, b = outputs.double().numpy(), y.double().numpy()
    assert values["sqnr_db"] == pytest.approx(10 * np.log10((b**2).sum() / ((a - b) ** 2).sum()))
    if shape[0] == 1:
        assert set(values) == {"sqnr_db"}
    else:
        assert values["agreement"] == pytest.approx((a.argmax(1) == b.argmax(1)).mean())
        assert 0 < values["agreement"] < 1


@pytest.mark.parametrize(
    ("signal", "noise", "expected"), [(1, 0, 144), (0, 0, 144), (0, 1, -144), (1e-300, 1e300, -144), (100, 1, 20)]
)
def test_decibels_are_finite(signal: float, noise: float, expected: float) -> None:
    assert decibels(signal, noise) == pytest.approx(expected)
    assert CEILING_DB == 144


class _Head(nn.Module):
    def __init__(self, factor: float, outputs: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.relu, self.last = nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, outputs)
        with torch.no_grad():
            self.last.weight.mul_(factor)
            self.last.bias.mul_(factor)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.relu(self.hidden(x)))
        return out


def head(factor: float = 1.0) -> fx.GraphModule:
    return fx.symbolic_trace(_Head(factor))


def test_the_float_network_imitates_itself_perfectly_and_another_less() -> None:
    split = Split(drawn(20, 3), None)
    assert evaluate(head(), split, UNCHANGED, IMITATION).values == {"sqnr_db": 144.0, "agreement": 1.0}
    half = evaluate(head(0.5), split, UNCHANGED, IMITATION, head()).values
    assert half["sqnr_db"] == pytest.approx(20 * math.log10(2), abs=1e-4)
    assert half["agreement"] == 1.0


@pytest.mark.parametrize("distillation", [0.0, 0.5, 1.0])
def test_an_imitation_is_trained_on_the_teacher_whatever_the_recipe_distils(distillation: float) -> None:
    teacher, student, x = head(), head(0.5), drawn(6, 3)
    task = IMITATION.scaled(torch.tensor([3.0, 4.0]))
    objective = Objective(distillation, teacher, task)
    expected = (teacher(x) - student(x)).square().mean() / 12.5
    loss = objective(student(x), Batch(x, None))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    data = Data(Split(x, None), Split(x, None), None, Split(x, None), UNCHANGED, {}, needs_labels=False)
    figure = objective.figure(student, data)
    assert set(figure.values) == {"sqnr_db_val", "agreement_val"}
    assert figure.key == (figure.values["sqnr_db_val"],)


SETTINGS = [
    {"optimiser": "sgd", "learning_rate": 0.05, "weight_decay": 0.01, "clip": 0.5},
    {"optimiser": "adam", "learning_rate": 0.01, "weight_decay": 0.01, "averaging": 0.9},
    {"optimiser": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "distillation": 0.5},
]


def trained(unit: float, settings: Training) -> tuple[fx.GraphModule, Data]:
    """A network whose outputs and labels are in a unit, after some epochs."""
    x = drawn(64, 3)
    y = torch.stack((x.sum(1), x[:, 0] * x[:, 1]), 1) * unit
    split = Split(x, y)
    data = Data(split, split, None, split, UNCHANGED, {})
    network = head(unit)
    task = REGRESSION.scaled(Moments([y]).std.float())
    train(
        network,
        settings,
        data,
        task=task,
        teacher=head(unit),
        iteration="hardware_mapped",
        seed=0,
        emit=lambda body: None,
        should_stop=lambda: False,
    )
    return network, data


@pytest.mark.parametrize("given", SETTINGS, ids=lambda given: given["optimiser"])
@pytest.mark.parametrize("unit", [1024.0, 2.0**-10])
def test_the_unit_of_the_labels_changes_nothing_about_the_training(given: dict[str, object], unit: float) -> None:
    settings = Training.model_validate({"epochs": 10, "batch_size": 16, **given})
    (plain, data), (scaled, _) = trained(1.0, settings), trained(unit, settings)
    x = data.val.x if data.val else torch.empty(0)
    assert torch.equal(scaled(x), plain(x) * unit)
    before = evaluate(head(), data.val or data.train, UNCHANGED, REGRESSION).values["mse"]
    assert evaluate(plain, data.val or data.train, UNCHANGED, REGRESSION).values["mse"] < before
