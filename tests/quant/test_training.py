"""The training loop: deterministic, best epoch kept, ended cleanly; and the data it is fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dianaq.errors import JobCancelled, QuantisationError
from dianaq.schemas.events import MetricsBody, ProgressBody
from dianaq.schemas.recipe import Training
from dianaq.schemas.spec import JobSpec, Preprocessing
from dianaq_quant.targets.diana import INT8
from dianaq_quant.training.data import Data, Split
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.load import load_data
from dianaq_quant.training.objective import Objective

from .builder import ModelBuilder
from .classes import CLASSES, fit, network, separable
from .stages import UNCHANGED
from .support import quantise, run_onnx


@pytest.fixture
def data() -> Data:
    training = separable(256, 0)
    return Data(training, separable(100, 1), None, training.take(64), UNCHANGED, None)


SETTINGS = Training(epochs=8, learning_rate=0.1, batch_size=32)


def test_training_learns_and_reports_every_epoch(data: Data) -> None:
    net = network()
    before = evaluate(net, data.val, UNCHANGED).values["top1"]
    events = fit(net, data, SETTINGS)
    after = evaluate(net, data.val, UNCHANGED).values["top1"]
    assert after > max(before, 0.8)
    metrics = [e for e in events if isinstance(e, MetricsBody)]
    assert [m.epoch for m in metrics] == list(range(1, 9))
    assert set(metrics[0].values) == {"loss", "loss_val", "accuracy_val"}
    assert any(isinstance(e, ProgressBody) and e.label == "epoch 8/8" and e.step == e.total == 8 for e in events)


def test_the_best_epoch_is_kept(data: Data) -> None:
    net = network()
    metrics = [e for e in fit(net, data, SETTINGS) if isinstance(e, MetricsBody)]
    assert evaluate(net, data.val, UNCHANGED).values["top1"] == max(m.values["accuracy_val"] for m in metrics)


def test_a_network_that_training_makes_worse_is_left_as_it_was(data: Data) -> None:
    net = network()
    fit(net, data, SETTINGS)
    good = {k: v.clone() for k, v in net.state_dict().items()}
    wrong = Data(Split(data.train.x, (data.train.y + 1) % CLASSES), data.val, None, data.calibration, UNCHANGED, None)
    fit(net, wrong, SETTINGS)
    assert all(torch.equal(v, good[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_held_out_data_do_not_speak_for_networks_that_remember_them(data: Data, schedule: str) -> None:
    net = network()
    fit(net, data, SETTINGS)
    good = {k: v.clone() for k, v in net.state_dict().items()}
    wrong = Split(data.train.x, (data.train.y + 1) % CLASSES)
    settings = SETTINGS.model_copy(update={"schedule": schedule})
    events = fit(net, Data(wrong, data.val, None, data.calibration, UNCHANGED, None, held_out=True), settings)
    assert any(not torch.equal(v, good[k]) for k, v in net.state_dict().items())
    figures = [e.values["accuracy_val"] for e in events if isinstance(e, MetricsBody)]
    assert figures[-1] < max(figures)
    # A rate that falls to zero ends with the network to keep; one that stays has no such epoch.
    kept = figures[-1] if schedule == "cosine" else max(figures)
    assert evaluate(net, data.val, UNCHANGED).values["top1"] == kept


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data: Data) -> None:
    nets = [network() for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        fit(net, data, Training(epochs=2, learning_rate=0.05, batch_size=32, optimiser="adam"), seed=seed)
    first, same, other = (torch.cat([p.detach().flatten() for p in n.parameters()]) for n in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_zero_epochs_change_nothing_and_need_no_labels(data: Data) -> None:
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    unlabelled = Data(Split(data.train.x, None), None, None, data.calibration, UNCHANGED, None)
    assert fit(net, unlabelled, Training()) == []
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_distillation_alone_needs_no_labels_and_follows_the_teacher(data: Data) -> None:
    teacher, student = network(), network()
    fit(teacher, data, SETTINGS)
    unlabelled = Data(Split(data.train.x, None), Split(data.val.x, None), None, data.calibration, UNCHANGED, None)
    settings = Training(epochs=8, learning_rate=0.1, batch_size=32, distillation=1.0)
    objective = Objective(1.0, teacher)
    before = objective.figure(student, unlabelled).values["objective_val"]
    fit(student, unlabelled, settings, teacher=teacher)
    assert objective.figure(student, unlabelled).values["objective_val"] < before / 4


def test_a_cancelled_training_ends_at_once(data: Data) -> None:
    asked = iter([False, True])
    with pytest.raises(JobCancelled, match="epoch 1 of float"):
        fit(network(), data, SETTINGS, should_stop=lambda: next(asked))


def test_a_loss_that_is_not_finite_is_refused_with_the_learning_rate(data: Data) -> None:
    with pytest.raises(QuantisationError, match=r"not finite.*1e\+30") as caught:
        fit(network(), data, Training(epochs=2, learning_rate=1e30, batch_size=32))
    assert caught.value.param == "recipe.float.learning_rate"


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def job(**changes: object) -> JobSpec:
    return JobSpec.model_validate({"model": "m", "dataset": "d", **changes})


def test_images_are_transposed_and_normalised(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), dtype=np.uint8)
    spec = job(preprocessing={"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]})
    data = load_data(saved(tmp_path, x_train=x), spec, (3, 8, 6))
    batch = data.normalise(data.train.x)
    expected = (x.transpose(0, 3, 1, 2) / 255 - np.reshape([0.1, 0.2, 0.3], (3, 1, 1))) / np.reshape(
        [0.5, 0.6, 0.7], (3, 1, 1)
    )
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-6)
    assert data.train.x.dtype == torch.uint8
    assert data.input_steps == {}  # the channels' steps differ


def test_validation_data_are_held_out_of_training_by_the_seed(tmp_path: Path) -> None:
    x = np.arange(100, dtype=np.float32).reshape(100, 1)
    path = saved(tmp_path, x_train=x, y_train=np.zeros(100, dtype=np.int64))
    data = load_data(path, job(recipe={"validation_fraction": 0.2}), (1,))
    assert (len(data.train), len(data.val)) == (80, 20)
    assert data.held_out
    assert set(data.train.x.flatten().tolist()) | set(data.val.x.flatten().tolist()) == set(range(100))
    again = load_data(path, job(recipe={"validation_fraction": 0.2}), (1,))
    assert torch.equal(again.val.x, data.val.x)
    other = load_data(path, job(recipe={"validation_fraction": 0.2, "seed": 1}), (1,))
    assert not torch.equal(other.val.x, data.val.x)


@pytest.mark.parametrize(
    ("samples", "fraction", "held_out"),
    [(5, 0.02, 1), (40, 0.02, 4), (40, 0.5, 20), (5000, 0.02, 500), (10_000, 0.02, 500), (30_000, 0.02, 600)],
)
def test_a_small_part_is_enough_samples_to_measure(
    tmp_path: Path, samples: int, fraction: float, held_out: int
) -> None:
    path = saved(tmp_path, x_train=np.zeros((samples, 1), np.float32), y_train=np.zeros(samples, dtype=np.int64))
    assert len(load_data(path, job(recipe={"validation_fraction": fraction}), (1,)).val) == held_out


def test_calibration_takes_as_many_training_samples_as_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=np.arange(50, dtype=np.float32).reshape(50, 1))
    assert len(load_data(path, job(recipe={"calibration": {"samples": 7}}), (1,)).calibration) == 7
    assert len(load_data(path, job(), (1,)).calibration) == 50


@pytest.mark.parametrize(
    ("mean", "std", "steps"),
    [(0.5, 0.5, 1), (0.0, 1.0, 2), (0.45, 0.25, 2), (1.0, 1.0, 2)],
    ids=["centred", "unsigned", "off-centre", "negative"],
)
def test_the_input_step_maps_all_pixels_into_int8(tmp_path: Path, mean: float, std: float, steps: int) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    spec = job(preprocessing=Preprocessing(mean=(mean,), std=(std,)))
    data = load_data(saved(tmp_path, x_train=x), spec, (1, 1, 1))
    assert data.input_steps[INT8] == pytest.approx(steps / (255 * std), rel=1e-4)
    integers = torch.floor(data.normalise(data.train.x) / data.input_steps[INT8])
    assert integers.min() >= -128
    assert integers.max() <= 127
    assert len(integers.unique()) == 256 // steps or steps > 1


def test_averaging_keeps_the_moving_average_of_the_weights(data: Data) -> None:
    net = network()
    averages = [p.detach().clone() for p in net.parameters()]
    steps = 0

    def follow() -> bool:
        nonlocal steps
        steps += 1
        for mean, present in zip(averages, net.parameters(), strict=True):
            mean.lerp_(present.detach(), 1 - min(0.5, (1 + steps) / (10 + steps)))
        return False

    fit(net, data, SETTINGS.model_copy(update={"epochs": 1, "averaging": 0.5}), should_stop=follow)
    assert steps == 8
    for mean, kept in zip(averages, net.parameters(), strict=True):
        assert torch.allclose(mean, kept, atol=1e-6)


def test_training_on_part_of_the_samples_takes_a_fixed_random_part(data: Data) -> None:
    part = data.part(40, seed=3)
    assert len(part.train) == 40
    assert torch.equal(part.train.x, data.part(40, seed=3).train.x)
    assert not torch.equal(part.train.x, data.part(40, seed=4).train.x)
    whole = {sample.numpy().tobytes() for sample in data.train.x}
    assert {sample.numpy().tobytes() for sample in part.train.x} < whole
    assert part.train.y is not None
    assert data.part(1000, seed=3) is data.part(None, seed=3) is data
    steps = [
        e.total
        for e in fit(network(), data, SETTINGS.model_copy(update={"samples": 70, "epochs": 1}))
        if isinstance(e, ProgressBody)
    ]
    assert set(steps) == {2}  # of 32 samples each


def test_tuning_needs_no_labels_and_brings_the_outputs_closer(tmp_path: Path) -> None:
    """The preset on few bits, where rounding costs something."""
    b = ModelBuilder((1, 6, 6), seed=1)
    y = b.relu(b.conv(b.input, 8, pads=(1, 1, 1, 1), name="first"))
    y = b.relu(b.conv(y, 8, pads=(1, 1, 1, 1), name="second"))
    model = b.build(b.gemm(b.flatten(b.global_pool(y)), CLASSES, name="head"))
    x = separable(300, 0).x.numpy()
    expected = run_onnx(model, x)
    errors = {}
    few_bits = {"quantisers": {"weights": {"range": {"bitwidth": 3, "signed": True}}}}
    for preset, settings in (("ptq", {}), ("ptq-tuned", {"hardware_exact": {"learning_rate": 0.005}})):
        (tmp_path / preset).mkdir()
        recipe = {"preset": preset, **few_bits, **settings}
        folder = quantise(model, {"x_train": x}, tmp_path / preset, recipe=recipe).folder
        found = run_onnx(onnx.load(str(folder / "htvm/model.onnx")), x)[:, :CLASSES]
        soft = [torch.log_softmax(torch.from_numpy(logits), 1) for logits in (found, expected)]
        errors[preset] = float(torch.nn.functional.kl_div(*soft, log_target=True, reduction="batchmean"))
    assert errors["ptq-tuned"] < 0.9 * errors["ptq"]
