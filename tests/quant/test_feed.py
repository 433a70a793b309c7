"""What training is fed: epochs that can be repeated from any step, augmented batches, and the loss of mixed ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dianaq.schemas.recipe import Training
from dianaq.schemas.spec import JobSpec
from dianaq_quant.training.batch import Batch, Mixture
from dianaq_quant.training.data import Data, Normalisation, Split
from dianaq_quant.training.feed import Feed, ahead, augmented, pinned
from dianaq_quant.training.load import load_data
from dianaq_quant.training.objective import Objective
from dianaq_quant.training.tasks import CLASSIFICATION, TASKS

from .stages import UNCHANGED

PIXELS = Normalisation(
    torch.tensor([0.01, 0.02, 0.03]).reshape(3, 1, 1), torch.tensor([-1.0, -2.0, 0.5]).reshape(3, 1, 1)
)
EVERYTHING = {
    "flip": True,
    "crop": 0.25,
    "rotation": 20,
    "cutout": 0.5,
    "mixup": 0.3,
    "time_shift": 0.2,
    "noise": 0.1,
}


def images(count: int = 40, seed: int = 0) -> Split:
    """NHWC images as bytes, whose label is their number."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=random)
    return Split(x.permute(0, 3, 1, 2), torch.arange(count))


def data(split: Split, normalise: Normalisation = PIXELS) -> Data:
    return Data(split, None, None, split, normalise, {})


def feed(split: Split, augmentation: Any = "none", seed: int = 0, salt: str = "", size: int = 8) -> Feed:
    recipe = Training.model_validate({"batch_size": size, "augmentation": augmentation})
    return Feed(data(split), recipe, seed, salt)


def tensors(batch: Batch) -> list[Tensor | None]:
    mixed = batch.mixed or Mixture(None, torch.empty(0))
    return [batch.x, batch.labels, mixed.labels, mixed.shares]


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def test_an_epoch_has_each_sample_once_in_whole_batches() -> None:
    split = images(43)
    found = list(feed(split).epoch(1))
    assert [len(batch.x) for batch in found] == [8] * 5
    assert feed(split).steps == 5
    numbers = torch.cat([batch.labels for batch in found])
    assert len(numbers.unique()) == 40
    assert not torch.equal(numbers, numbers.sort().values)
    for batch in found:
        assert batch.mixed is None
        assert torch.equal(batch.x, PIXELS(split.x[batch.labels]))
        assert batch.x.is_contiguous(memory_format=torch.channels_last)


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    assert [len(batch.x) for batch in feed(images(5)).epoch(1)] == [5]
    assert feed(images(5)).steps == 1


@settings(max_examples=20, deadline=None)
@given(number=st.integers(1, 50), start=st.integers(0, 5), seed=st.integers(0, 2**63 - 1))
def test_an_epoch_can_be_begun_at_any_step(number: int, start: int, seed: int) -> None:
    undisturbed = list(feed(images(), EVERYTHING, seed).epoch(number))
    again = list(feed(images(), EVERYTHING, seed).epoch(number, start))
    assert len(again) == 5 - start
    assert all(same(a, b) for a, b in zip(undisturbed[start:], again, strict=True))


def test_epochs_seeds_and_salts_differ_in_order_and_in_augmentation() -> None:
    kinds = [
        feed(images(), "flip_crop").epoch(1),
        feed(images(), "flip_crop").epoch(2),
        feed(images(), "flip_crop", seed=1).epoch(1),
        feed(images(), "flip_crop", salt="float").epoch(1),
    ]
    orders = [torch.cat([batch.labels for batch in kind]) for kind in kinds]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    alike = Split(images(1).x.repeat(40, 1, 1, 1), None)  # of one image, only augmentation tells batches apart
    steps = [batch.x for kind in (1, 2) for batch in feed(alike, "flip_crop").epoch(kind)]
    assert len({x.numpy().tobytes() for x in steps}) == len(steps)


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    state = torch.get_rng_state()
    first = list(feed(images(), EVERYTHING).epoch(1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(same(a, b) for a, b in zip(first, feed(images(), EVERYTHING).epoch(1), strict=True))


def one(augmentation: Any, raw: Tensor, normalise: Normalisation = UNCHANGED, seed: int = 0) -> Batch:
    """A batch of the given samples, in order."""
    wanted = Training.model_validate({"augmentation": augmentation}).augmentation
    return augmented(raw, torch.arange(len(raw)), wanted, normalise, torch.Generator().manual_seed(seed))


def test_flip_crop_mirrors_half_and_moves_by_an_eighth_at_most() -> None:
    x = torch.arange(1.0, 1 + 3 * 16 * 16).reshape(1, 3, 16, 16).repeat(400, 1, 1, 1)
    found = one("flip_crop", x).x
    mirrored = found[:, 0, 8, 8] > found[:, 0, 8, 9]
    assert 150 < int(mirrored.sum()) < 250
    straight = torch.where(mirrored.reshape(-1, 1, 1, 1), found.flip(3), found)
    index = straight[:, 0, 8, 8].long() - 1  # which pixel has come to (8, 8)
    rows, columns = index // 16, index % 16
    assert rows.unique().tolist() == columns.unique().tolist() == [6, 7, 8, 9, 10]
    for image, row, column in zip(straight, rows.tolist(), columns.tolist(), strict=True):
        expected = F.pad(x[0], (2, 2, 2, 2))[:, row - 6 : row + 10, column - 6 : column + 10]
        assert torch.equal(image, expected)


def test_what_comes_in_is_zero_after_normalisation() -> None:
    white = torch.full((64, 3, 8, 8), 255, dtype=torch.uint8)
    for augmentation in ({"crop": 0.5}, {"time_shift": 0.5}, {"cutout": 0.5}):
        found = one(augmentation, white, PIXELS).x
        inside = PIXELS(white)[0, :, 0, 0]
        for channel in range(3):
            assert set(found[:, channel].unique().tolist()) == {0.0, float(inside[channel])}


def test_cutout_is_centred_on_a_pixel_of_the_map() -> None:
    found = one({"cutout": 0.5}, torch.ones(2000, 1, 8, 8)).x
    hidden = (found == 0).flatten(1).sum(1)
    assert (int(hidden.min()), int(hidden.max())) == (4, 16)
    assert bool((found == 0).any(0).all())


def test_rotation_turns_either_way_by_its_degrees_at_most() -> None:
    x = torch.zeros(500, 1, 41, 41)
    x[:, 0, 20, 35] = 1.0
    found = one({"rotation": 30}, x).x.flatten(1)
    rows = torch.arange(41.0).repeat_interleave(41)
    columns = torch.arange(41.0).repeat(41)
    up, right = 20 - (found @ rows) / found.sum(1), (found @ columns) / found.sum(1) - 20
    angles = torch.rad2deg(torch.atan2(up, right))
    assert 28 < float(angles.max()) < 30.5
    assert -30.5 < float(angles.min()) < -28


def test_a_time_shift_moves_the_last_dimension_alone() -> None:
    x = torch.arange(1.0, 1 + 10 * 20).reshape(1, 1, 10, 20).repeat(100, 1, 1, 1)
    found = one({"time_shift": 0.1}, x).x
    moves = set()
    for image in found[:, 0]:
        (move,) = [m for m in range(-20, 20) if torch.equal(image, _moved(x[0, 0], m))]
        moves.add(move)
    assert moves == {-2, -1, 0, 1, 2}
    both = one({"time_shift": 0.1, "crop": 0.1}, x).x[:, 0]
    steps = {int(image[5, 10]) for image in both}
    assert {(s - 1) % 20 - 10 for s in steps} == {-4, -3, -2, -1, 0, 1, 2, 3, 4}


def _moved(x: Tensor, right: int) -> Tensor:
    return F.pad(x, (20, 20))[:, 20 - right : 40 - right]


@pytest.mark.parametrize("shape", [(3, 8, 8), (100,)])
def test_noise_has_its_standard_deviation_of_the_normalised_input(shape: tuple[int, ...]) -> None:
    x = torch.full((200, *shape), 5.0)
    half = Normalisation(torch.tensor(0.1), torch.tensor(0.0))
    found = one({"noise": 0.05}, x, half).x - 0.5
    assert float(found.mean()) == pytest.approx(0, abs=2e-3)
    assert float(found.std()) == pytest.approx(0.05, rel=0.03)
    assert bool((x == 5).all())


def test_switching_one_augmentation_on_leaves_the_draws_of_the_others() -> None:
    x = torch.arange(1.0, 1 + 16 * 3 * 8 * 8).reshape(16, 3, 8, 8)
    plain, more = (one({"crop": 0.25} | extra, x).x for extra in ({}, {"mixup": 1e-3}))
    own = one({"mixup": 1e-3}, x).mixed.shares == 1  # the share is all or nothing for so small a number
    assert 0 < int(own.sum()) < 16
    assert torch.equal(more[own], plain[own])
    assert torch.equal(one({"flip": True, "crop": 0.25}, x[:, :, :, :1]).x, one({"crop": 0.25}, x[:, :, :, :1]).x)


def test_samples_are_not_written_to() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.rand(8, 3, 8, 8).contiguous(memory_format=layout)
        before = x.clone()
        one(EVERYTHING, x)
        assert torch.equal(x, before)


def test_mixup_tells_what_was_mixed() -> None:
    split = images(16)
    (batch,) = feed(split, {"mixup": 0.4}, size=16).epoch(3)
    plain = PIXELS(split.x)
    own, others, shares = batch.labels, batch.mixed.labels, batch.mixed.shares
    assert sorted(others.tolist()) == list(range(16))
    assert not bool((own == others).any())
    assert len(shares.unique()) > 8
    weights = shares.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(batch.x, weights * plain[own] + (1 - weights) * plain[others])


def test_the_loss_of_mixed_samples_is_that_of_both_labels_by_their_shares() -> None:
    random = torch.Generator().manual_seed(0)
    outputs, x = torch.randn(6, 4, generator=random), torch.randn(6, 3, generator=random)
    own, other = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 3, 2, 0, 1, 1])
    shares = torch.rand(6, generator=random)
    log = outputs.log_softmax(1)
    expected = -sum(
        float(share * log[i, a] + (1 - share) * log[i, b])
        for i, (share, a, b) in enumerate(zip(shares, own, other, strict=True))
    )
    loss = Objective(0.0, None)(outputs, Batch(x, own, Mixture(other, shares)))
    assert float(loss) == pytest.approx(expected / 6, rel=1e-5)
    alone = CLASSIFICATION.loss(outputs, Batch(x, own, Mixture(other, torch.ones(6))))
    assert float(alone) == pytest.approx(float(F.cross_entropy(outputs, own)), rel=1e-6)


def test_the_mixed_input_is_its_own_target_and_what_the_teacher_sees() -> None:
    (batch,) = feed(replace(images(16), y=None), {"mixup": 0.4}, size=16).epoch(1)
    assert batch.labels is None
    assert batch.mixed.labels is None
    assert float(TASKS["reconstruction"].loss(batch.x.flatten(1), batch)) == 0
    teacher = fx.symbolic_trace(nn.Flatten())
    assert float(Objective(1.0, teacher)(batch.x.flatten(1), batch)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_mapped_data_feed_the_same_batches(tmp_path: Path, save: Any) -> None:
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    save(tmp_path / "data.npz", x_train=x, y_train=np.arange(30) % 3)
    spec = JobSpec.model_validate({"model": "m", "dataset": "d", "recipe": {"float": {"epochs": 1}}})
    recipe = Training.model_validate({"batch_size": 8, "augmentation": EVERYTHING})
    held, mapped = (load_data(tmp_path / "data.npz", spec, (3, 8, 8), budget=budget) for budget in (10**6, 0))
    assert (held.train.mapped, mapped.train.mapped) == (False, True)
    pairs = zip(Feed(held, recipe, 0).epoch(1), Feed(mapped, recipe, 0).epoch(1), strict=True)
    assert all(same(a, b) for a, b in pairs)


def test_batches_for_a_gpu_are_those_picked_each_after_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for CUDA's streams notes what waits for what."""
    done: list[str] = []

    class Stream:
        def record_event(self) -> int:
            done.append("copied")
            return done.count("copied")

        def wait_event(self, number: int) -> None:
            done.append(f"waited for {number}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: done.append("pinned") or self)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: done.append("kept"))
    split = images(20)
    picks = list(torch.randperm(20, generator=torch.Generator().manual_seed(0)).split(5))
    found = list(pinned(split, picks, torch.device("cpu")))
    assert len(found) == 4
    assert all(torch.equal(raw, split.x[pick]) for raw, pick in zip(found, picks, strict=True))
    assert [word for word in done if word.startswith("waited")] == [f"waited for {n}" for n in (1, 2, 3, 4)]
    assert [done.count(word) for word in ("pinned", "copied", "kept")] == [4, 4, 4]


def test_the_next_result_is_made_by_a_thread_while_one_is_used() -> None:
    made: list[tuple[int, int]] = []
    second = threading.Event()

    def square(number: int) -> int:
        made.append((number, threading.get_ident()))
        if number == 2:
            second.set()
        return number * number

    results = ahead(square, iter(range(1, 5)))
    assert next(results) == 1
    assert second.wait(5)  # made although nobody has asked for it
    assert [number for number, _ in made] == [1, 2]  # but nothing beyond
    assert list(results) == [4, 9, 16]
    assert {thread for _, thread in made}.isdisjoint({threading.get_ident()})
    assert list(ahead(square, [])) == []


def test_an_error_of_the_thread_is_the_callers() -> None:
    def fail(number: int) -> int:
        raise OSError(f"no {number}")

    with pytest.raises(OSError, match="no 3"):
        next(ahead(fail, [3]))


def test_a_feed_that_is_left_leaves_no_thread() -> None:
    def numbers() -> Iterator[int]:
        yield from range(100)

    before = threading.active_count()
    results = ahead(abs, numbers())
    next(results)
    assert threading.active_count() == before + 1
    results.close()
    assert threading.active_count() == before
