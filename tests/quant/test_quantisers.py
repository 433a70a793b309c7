"""Rounding and its gradients, the choice of a scale, and what an observer keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dianaq.schemas.quantisers import InitStrategy, QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.quantisers import Observer, Seen, choose_scale, floor_clip, round_clip
from dianaq_quant.quantisers.functions import StraightThrough, round_through
from dianaq_quant.quantisers.observer import SAMPLE_LIMIT

INT8 = QRange(bitwidth=8, signed=True)
RECTIFIED = QRange(bitwidth=7, signed=False)


def scale_of(seen: list[tuple[Tensor, QRange]], strategy: str, base: float | None = None) -> float:
    """The scale that tensors share which are seen whole."""
    return choose_scale([Seen.of(x, qrange) for x, qrange in seen], InitStrategy(strategy=strategy), base=base)


def squared_error(sample: Tensor, qrange: QRange, scale: float) -> float:
    return float(Seen.of(sample, qrange).error(torch.tensor([scale], dtype=torch.float64)))


def with_gradient(function, values: list[float], *args: int) -> tuple[list[float], list[float]]:
    x = torch.tensor(values, requires_grad=True)
    y = function(x, *args)
    y.backward(torch.arange(1.0, len(values) + 1))
    return y.tolist(), x.grad.tolist()


def test_round_clip_rounds_half_up_and_passes_gradients_where_it_does_not_clip() -> None:
    values, gradient = with_gradient(round_clip, [-2.5, -1.5, -0.5, 0.49, 0.5, 1.5, 2.49, 2.5], -2, 2)
    assert values == [-2, -1, 0, 0, 1, 2, 2, 2]
    assert gradient == [1, 2, 3, 4, 5, 6, 7, 0]


def test_round_clip_stops_the_gradient_below_the_range() -> None:
    assert with_gradient(round_clip, [-2.51, -3.0], -2, 2) == ([-2, -2], [0, 0])


def test_floor_clip_floors_and_passes_gradients_where_it_does_not_clip() -> None:
    values, gradient = with_gradient(floor_clip, [-2.1, -2.0, -0.1, 0.0, 1.99, 2.99, 3.0], -2, 2)
    assert values == [-2, -2, -1, 0, 1, 2, 2]
    assert gradient == [0, 2, 3, 4, 5, 6, 0]


def test_round_through_passes_every_gradient() -> None:
    assert with_gradient(round_through, [-1000.5, 0.4]) == ([-1000, 0], [1, 2])


@pytest.mark.parametrize("function", [round_clip, floor_clip])
def test_the_input_is_left_alone_and_values_do_not_depend_on_gradients(function) -> None:
    x = torch.linspace(-5, 5, 101)
    before = x.clone()
    plain = function(x, -3, 3)
    assert torch.equal(x, before)
    assert torch.equal(function(x.clone().requires_grad_(), -3, 3).detach(), plain)


def test_the_straight_through_function_gives_the_nearest_representable_value() -> None:
    x = torch.tensor([-100.0, -0.3, 0.1, 0.13, 0.25, 9.0])
    got = StraightThrough.apply(x, torch.tensor(0.25), -4, 3)
    assert got.tolist() == [-1.0, -0.25, 0.0, 0.25, 0.25, 0.75]


@given(
    st.integers(0, 2**31 - 1), st.floats(1e-6, 1e6), st.sampled_from([INT8, RECTIFIED, QRange(n_levels=5, signed=True)])
)
def test_minmax_covers_all_values_tightly(seed: int, size: float, qrange: QRange) -> None:
    sample = torch.randn(200, generator=torch.Generator().manual_seed(seed)) * size
    scale = scale_of([(sample, qrange)], "minmax")
    positive, negative = float(sample.max()), -float(sample.min())
    expected = max(positive / qrange.hi, negative / -qrange.lo if qrange.lo else 0.0)
    assert scale == pytest.approx(expected, rel=1e-6)


def test_minmax_takes_account_of_the_sides_reaching_differently_far() -> None:
    assert scale_of([(torch.tensor([-128.0, 127.0]), INT8)], "minmax") == 1.0
    assert scale_of([(torch.tensor([-127.0, 128.0]), INT8)], "minmax") == pytest.approx(128 / 127)
    assert scale_of([(torch.tensor([-500.0, 127.0]), RECTIFIED)], "minmax") == 1.0


@pytest.mark.parametrize("strategy", ["minmax", "percentile", "mse"])
@given(st.integers(0, 2**31 - 1), st.floats(1e-4, 1e4), st.floats(0.1, 10))
def test_with_a_base_the_scale_is_a_power_of_two_of_it(strategy: str, seed: int, size: float, base: float) -> None:
    sample = torch.randn(100, generator=torch.Generator().manual_seed(seed)) * size
    scale = scale_of([(sample, INT8)], strategy, base=base)
    exponent = math.log2(scale / base)
    assert exponent == pytest.approx(round(exponent), abs=1e-9)
    if strategy == "minmax":
        free = scale_of([(sample, INT8)], strategy)
        assert free * (1 - 1e-6) <= scale < 2 * free


def test_a_limit_that_is_a_power_of_two_is_not_rounded_up() -> None:
    for exponent in range(-20, 20):
        sample = torch.tensor([127 * 2.0**exponent])
        assert scale_of([(sample, INT8)], "minmax", base=1.0) == 2.0**exponent


def test_percentile_leaves_out_outliers() -> None:
    sample = torch.cat([torch.full((99_999,), 1.27), torch.tensor([1000.0])])
    assert scale_of([(sample, INT8)], "percentile") == pytest.approx(0.01)
    assert scale_of([(sample, INT8)], "minmax") == pytest.approx(1000 / 127)


def test_percentile_of_a_mostly_zero_sample_falls_back_on_the_largest() -> None:
    sample = torch.cat([torch.zeros(99_999), torch.tensor([1.27])])
    assert scale_of([(sample, INT8)], "percentile") == pytest.approx(0.01)


@pytest.mark.parametrize("base", [None, 1.0])
def test_mse_is_the_best_of_its_neighbours(base: float | None) -> None:
    sample = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) ** 3
    qrange = QRange(n_levels=15, signed=True)
    scale = scale_of([(sample, qrange)], "mse", base=base)
    step = 2.0 if base else 2 ** (1 / 8)
    best = squared_error(sample, qrange, scale)
    assert best <= squared_error(sample, qrange, scale * step)
    assert best <= squared_error(sample, qrange, scale / step)
    assert best < squared_error(sample, qrange, scale_of([(sample, qrange)], "minmax"))


def test_a_shared_scale_serves_all() -> None:
    small, large = torch.tensor([1.27]), torch.tensor([12.7])
    assert scale_of([(small, INT8), (large, INT8)], "minmax") == pytest.approx(0.1)
    assert scale_of([(small, INT8), (large, RECTIFIED)], "percentile") == pytest.approx(0.1)


@pytest.mark.parametrize("strategy", ["minmax", "percentile", "mse"])
def test_zeros_get_the_base_or_one(strategy: str) -> None:
    for sample, qrange in ((torch.zeros(10), INT8), (-torch.ones(10), RECTIFIED)):
        assert scale_of([(sample, qrange)], strategy) == 1.0
        assert scale_of([(sample, qrange)], strategy, base=0.3) == 0.3


def test_squared_error_of_a_rectified_range_ignores_what_the_relu_removes() -> None:
    assert squared_error(torch.tensor([-5.0, 2.0]), RECTIFIED, 1.0) == 0.0
    assert squared_error(torch.tensor([-5.0, 2.25]), INT8, 1.0) == 0.25**2 / 2


def observed(*batches: Tensor) -> Observer:
    observer = Observer()
    for batch in batches:
        observer.observe(batch)
    return observer


def test_observer_keeps_exact_extremes_whatever_it_subsamples() -> None:
    spike = torch.zeros(3 * SAMPLE_LIMIT + 5)
    spike[SAMPLE_LIMIT + 1], spike[7] = 9.0, -11.0
    observer = observed(torch.ones(4), spike, torch.ones(2, 2))
    assert (float(observer.lo), float(observer.hi)) == (-11.0, 9.0)
    assert observer.count == spike.numel() + 8


def test_observer_keeps_everything_while_it_is_little() -> None:
    batches = [torch.arange(i, i + 6.0).reshape(2, 3) for i in (0, 6, 12)]
    assert observed(*batches).sample.tolist() == [list(range(18))]


def test_observer_sample_is_bounded_and_even() -> None:
    parts = torch.arange(4.0 * SAMPLE_LIMIT).split(SAMPLE_LIMIT // 4)
    sample = observed(*parts).sample[0]
    assert SAMPLE_LIMIT / 4 <= len(sample) <= SAMPLE_LIMIT
    for part in parts:  # every batch has its share
        share = ((sample >= part[0]) & (sample <= part[-1])).sum()
        assert abs(share / len(sample) - 1 / len(parts)) < 0.02


def test_the_order_of_batches_changes_neither_extremes_nor_the_sampled_set() -> None:
    batches = [torch.randn(100, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    forward, backward = observed(*batches), observed(*reversed(batches))
    assert (forward.lo, forward.hi, forward.count) == (backward.lo, backward.hi, backward.count)
    assert sorted(forward.sample[0].tolist()) == sorted(backward.sample[0].tolist())
    scales = [choose_scale([Seen.by(o, INT8)], InitStrategy(strategy="mse"), base=1.0) for o in (forward, backward)]
    assert scales[0] == scales[1]


def test_an_observer_that_saw_nothing_gives_no_sample() -> None:
    with pytest.raises(RuntimeError, match="no forward pass has been observed"):
        _ = Observer().sample


def test_a_quantiser_observes_what_its_activation_gives() -> None:
    quantiser = FakeQuantiser(QuantiserSpec(), RECTIFIED, ceiling=6.0)
    quantiser.mode = "observe"
    x = torch.tensor([-2.0, 3.0, 8.0])
    assert quantiser(x).tolist() == [0, 3, 6]
    assert quantiser.observer.sample.tolist() == [[0, 3, 6]]
    quantiser.mode = "quantise"
    quantiser.scale.set(0.5)
    assert quantiser(x + 0.3).tolist() == [0, 3.5, 8.5]
    assert quantiser.observer.count == 3
