"""What differs between tasks: losses, divergences, figures, and which samples are learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from dianaq.errors import InvalidDataset
from dianaq.schemas.events import EventBody, MetricsBody
from dianaq.schemas.recipe import Training
from dianaq.schemas.spec import JobSpec
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.data import Data, Normalisation, Split
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.load import load_data
from dianaq_quant.training.loop import train
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.task import Task
from dianaq_quant.training.tasks import CLASSIFICATION, TASKS, area_under_curve

from .stages import UNCHANGED

RECONSTRUCTION = TASKS["reconstruction"]


class _Linear(nn.Module):
    """`y = W x`, without a graph of its own."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.linear.weight.data = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


def linear(weight: torch.Tensor) -> fx.GraphModule:
    return fx.symbolic_trace(_Linear(weight.clone()))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(drawn: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([score for score, _ in drawn]) / 7
    positive = torch.tensor([flag for _, flag in drawn])
    if positive.all() or not positive.any():
        positive[0] = ~positive[0]
    pairs = scores[positive][:, None] - scores[~positive]
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()
    assert area_under_curve(scores, positive) == pytest.approx(float(expected), abs=1e-12)


def test_scores_that_float32_cannot_tell_apart_are_no_ties() -> None:
    scores = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert area_under_curve(scores, torch.tensor([False, True])) == 1.0


def test_top5_counts_labels_among_the_five_largest_outputs() -> None:
    labels = torch.tensor([0, 4, 5, 6])  # rank first, fifth, sixth and seventh
    logits = -torch.arange(7.0).repeat(4, 1)
    figures = CLASSIFICATION.measure([(logits[:2], logits, labels[:2]), (logits[2:], logits, labels[2:])])
    assert figures.samples == 4
    assert (figures.values["top1"], figures.values["top5"]) == (0.25, 0.5)
    assert figures.values["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    assert set(figures.named("val")) == {"accuracy_val", "top5_val", "loss_val"}


def test_top5_says_nothing_with_five_classes() -> None:
    figures = CLASSIFICATION.measure([(torch.eye(5), torch.eye(5), torch.arange(5))])
    assert set(figures.values) == {"top1", "loss"}


X = torch.tensor([[1.0, 1.0], [2.0, 0.0], [4.0, 0.0], [0.0, 0.5]])
"""Reconstructed as zero, their mean squared errors are 1, 2, 8 and 0.125."""


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (None, {"mse": 11.125 / 4}),
        ([0, 0, 0, 0], {"mse": 11.125 / 4}),
        ([0, 1, 1, 0], {"mse": 1.125 / 2, "auc": 1.0}),
        ([1, 0, 1, 0], {"mse": 2.125 / 2, "auc": 0.75}),
    ],
)
def test_reconstruction_measures_normal_samples_and_the_area(
    labels: list[int] | None, values: dict[str, float]
) -> None:
    split = Split(X, None if labels is None else torch.tensor(labels))
    figures = evaluate(linear(torch.zeros(2, 2)), split, UNCHANGED, RECONSTRUCTION)
    assert figures.samples == 4
    assert figures.values == pytest.approx(values)
    assert set(figures.named("test")) == {f"{name}_test" for name in values}


def test_the_input_is_compared_normalised_and_in_the_shape_of_the_output() -> None:
    image = torch.full((2, 1, 2, 2), 3.0)
    normalise = Normalisation(torch.tensor([2.0]).reshape(1, 1, 1), torch.tensor([-1.0]).reshape(1, 1, 1))
    flat = fx.symbolic_trace(nn.Sequential(nn.Flatten()))
    assert evaluate(flat, Split(image, None), normalise, RECONSTRUCTION).values == {"mse": 0.0}
    outputs = normalise(image).flatten(1) + 2
    assert float(RECONSTRUCTION.loss(outputs, Batch(normalise(image), None))) == pytest.approx(4.0)


def test_divergences() -> None:
    a, b = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 3.0]])
    assert float(RECONSTRUCTION.divergence(a, b)) == pytest.approx(4.0)
    assert float(CLASSIFICATION.divergence(a, b)) == pytest.approx(0.0, abs=1e-6)  # the same probabilities


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: type(task).__name__)
def test_evaluation_leaves_the_mode_as_it_was(task: Task) -> None:
    network = linear(torch.eye(2)).train()
    labels = X if task.label_type is np.float32 else torch.tensor([0, 1, 0, 1])
    evaluate(network, Split(X, labels), UNCHANGED, task)
    assert network.training


def rank_one(count: int, seed: int) -> torch.Tensor:
    """Samples on a line in four dimensions, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    along = torch.randn((count, 1), generator=generator)
    return along * torch.tensor([1.0, -1.0, 0.5, 2.0]) + 0.01 * torch.randn((count, 4), generator=generator)


def unlabelled(**changes: Any) -> Data:
    train = Split(rank_one(128, 0), None)
    val = changes.pop("val", Split(rank_one(40, 1), None))
    return Data(train, val, None, train.take(32), UNCHANGED, None, needs_labels=False, **changes)


def fit(network: fx.GraphModule, data: Data, settings: Training, **options: Any) -> list[dict[str, float]]:
    """Train an autoencoder; the figures of its epochs."""
    events: list[EventBody] = []
    train(
        network,
        settings,
        data,
        task=RECONSTRUCTION,
        iteration="float",
        seed=0,
        emit=events.append,
        should_stop=lambda: False,
        **options,
    )
    return [e.values for e in events if isinstance(e, MetricsBody)]


def start(seed: int = 0) -> fx.GraphModule:
    return linear(0.1 * torch.randn((4, 4), generator=torch.Generator().manual_seed(seed)))


SETTINGS = Training(epochs=5, learning_rate=0.05, batch_size=16)


def test_an_autoencoder_learns_without_labels() -> None:
    network = start()
    epochs = fit(network, unlabelled(), SETTINGS)
    assert set(epochs[0]) == {"loss", "mse_val"}
    mse = evaluate(network, unlabelled().val, UNCHANGED, RECONSTRUCTION).values["mse"]
    assert mse == pytest.approx(min(e["mse_val"] for e in epochs))
    assert mse < 0.01


def test_the_target_of_an_augmented_image_is_the_augmented_image() -> None:
    images = torch.randn((32, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    network = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False)))
    network.get_submodule("1").weight.data = torch.eye(64)
    split = Split(images, None)
    data = Data(split, split, None, split, UNCHANGED, None, needs_labels=False)
    settings = Training(epochs=1, learning_rate=1e-9, batch_size=16, augmentation="flip_crop")
    assert fit(network, data, settings)[0]["loss"] < 1e-6


def test_an_autoencoder_that_training_makes_worse_is_left_as_it_was() -> None:
    network = linear(torch.eye(4))
    fit(
        network, unlabelled(), Training(epochs=2, learning_rate=0.3, batch_size=16, schedule="constant", weight_decay=1)
    )
    assert torch.equal(network.get_submodule("linear").weight, torch.eye(4))


def test_the_best_epoch_is_that_of_the_normal_samples() -> None:
    # Anomalies in the validation split are reconstructed better before training: they must not have a say.
    odd = 50 * torch.eye(4)
    val = Split(torch.cat([rank_one(40, 1), odd]), torch.cat([torch.zeros(40), torch.ones(4)]).long())
    network = linear(torch.eye(4) * 0.9)
    before = evaluate(network, val, UNCHANGED, RECONSTRUCTION).values
    epochs = fit(network, unlabelled(val=val), SETTINGS)
    assert set(epochs[0]) == {"loss", "mse_val", "auc_val"}
    assert evaluate(network, val, UNCHANGED, RECONSTRUCTION).values["mse"] < before["mse"] / 10


def test_distillation_follows_the_teachers_output_not_the_input() -> None:
    teacher = linear(torch.diag(torch.tensor([1.0, 0.0, 0.0, 1.0])))  # keeps two of the four values
    student, data = start(), unlabelled()
    objective = Objective(1.0, teacher, RECONSTRUCTION)
    before = objective.figure(student, data).values["objective_val"]
    epochs = fit(student, data, SETTINGS.model_copy(update={"distillation": 1.0}), teacher=teacher)
    after = objective.figure(student, data).values["objective_val"]
    assert set(epochs[0]) == {"loss", "mse_val", "objective_val"}
    assert after < before / 20
    x = data.val.x
    with torch.no_grad():
        gap = float((student(x) - teacher(x)).square().mean())
        assert gap == pytest.approx(after, rel=1e-4)
        assert gap < float((student(x) - x).square().mean()) / 20


def test_the_teachers_share_is_weighed_against_the_input() -> None:
    teacher, x = linear(torch.zeros(2, 2)), torch.ones(1, 2)
    loss = Objective(0.25, teacher, RECONSTRUCTION)(torch.full((1, 2), 3.0), Batch(x, None))
    assert float(loss) == pytest.approx(0.75 * 4 + 0.25 * 9)


def test_the_objective_of_a_split_leaves_anomalies_out() -> None:
    split = Split(torch.tensor([[1.0, 1.0], [100.0, 100.0]]), torch.tensor([0, 1]))
    data = Data(split, split, None, split, UNCHANGED, None, needs_labels=False)
    figure = Objective(1.0, linear(torch.eye(2)), RECONSTRUCTION).figure(linear(torch.zeros(2, 2)), data)
    assert figure.values["objective_val"] == pytest.approx(1.0)
    assert figure.key == (pytest.approx(-1.0),)


@pytest.mark.parametrize("distillation", [0.0, 0.5])
def test_measuring_a_split_runs_the_network_once_and_the_teacher_once_for_all_times(distillation: float) -> None:
    split = Split(rank_one(600, 0), torch.zeros(600).long())
    data = Data(split, split, None, split, UNCHANGED, None, needs_labels=False)
    network, teacher = linear(torch.eye(4)), linear(2 * torch.eye(4))
    seen = {"network": 0, "teacher": 0}
    for name, net in (("network", network), ("teacher", teacher)):
        net.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: seen[name] + len(inputs[0])}))
    objective = Objective(distillation, teacher, RECONSTRUCTION)
    first, second = (objective.figure(network, data) for _ in range(2))
    assert first == second
    assert seen == {"network": 2 * 600, "teacher": 600 if distillation else 0}


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def job(**changes: object) -> JobSpec:
    return JobSpec.model_validate({"model": "m", "dataset": "d", "task": "reconstruction", **changes})


NUMBERS = np.arange(40, dtype=np.float32).reshape(40, 1)


def test_anomalies_are_neither_trained_on_nor_calibrated_with(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=NUMBERS, y_train=np.arange(40) % 2)
    data = load_data(path, job(), (1,))
    assert (len(data.train), len(data.val), len(data.calibration)) == (18, 2, 18)
    kept = torch.cat([data.train.x, data.val.x]).flatten().sort().values
    assert kept.tolist() == list(range(0, 40, 2))
    labels = load_data(path, job(task="classification"), (1,))
    assert len(labels.train) + len(labels.val) == 40


def test_what_is_reported_without_labels(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=NUMBERS, x_test=NUMBERS[:3])
    name, split = load_data(path, job(), (1,)).report_split or ("", None)
    assert (name, len(split or ())) == ("test", 3)
    assert load_data(path, job(task="classification"), (1,)).report_split is None
    alone = load_data(saved(tmp_path, x_train=NUMBERS), job(), (1,))
    assert alone.held_out
    assert (alone.report_split or ("",))[0] == "val"


@pytest.mark.parametrize("task", ["classification", "reconstruction"])
def test_training_takes_three_samples_or_two_and_a_validation_split(tmp_path: Path, task: str) -> None:
    recipe = {"float": {"epochs": 1}}

    def few(count: int, **more: np.ndarray) -> Path:
        # Anomalies, labelled 1, are no samples to train on of the task that finds them.
        anomalies = 2 if task == "reconstruction" else 0
        y = np.array([0] * count + [1] * anomalies)
        return saved(tmp_path, x_train=NUMBERS[: len(y)], y_train=y, **more)

    for count, more, words in ((1, {}, "1 sample to"), (2, {}, "2 samples to"), (1, {"x_val": NUMBERS}, "1 sample to")):
        with pytest.raises(InvalidDataset, match=f"x_train has {words} train on; at least three are needed"):
            load_data(few(count, **more), job(task=task, recipe=recipe), (1,))
        assert load_data(few(count, **more), job(task=task), (1,)).calibration
    alone = load_data(few(3), job(task=task, recipe=recipe), (1,))
    assert (len(alone.train), len(alone.val)) == (2, 1)
    both = load_data(few(2, x_val=NUMBERS), job(task=task, recipe=recipe), (1,))
    assert (len(both.train), len(both.val)) == (2, 40)
