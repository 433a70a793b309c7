"""How scales and free offsets follow from statistics: every strategy, for whole arrays and slice by slice."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dianaq.schemas.quantisers import InitStrategy, QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.modules.quantiser import FakeQuantiser, WeightQuantiser
from dianaq_quant.quantisers import Seen, choose_offset, choose_scale, choose_scales
from dianaq_quant.quantisers.scales import binary_scale, ternary_scale

INT8 = QRange(bitwidth=8, signed=True)
RECTIFIED = QRange(bitwidth=7, signed=False)
FREE = QRange(bitwidth=4)

STRATEGIES = [
    InitStrategy(strategy="minmax"),
    InitStrategy(strategy="meanstd"),
    InitStrategy(strategy="meanstd", n_std=1.5),
    InitStrategy(strategy="mse"),
    InitStrategy(strategy="percentile"),
    InitStrategy(strategy="percentile", percentile=90),
    InitStrategy(strategy="const", a=-2.0, b=3.0),
]
RANGES = [
    INT8,
    RECTIFIED,
    QRange(limpbitwidth=4, signed=True),
    QRange(n_levels=9, offset=-2),
    QRange(n_levels=3, offset=-1),
]


def strategy(**written: Any) -> InitStrategy:
    return InitStrategy.model_validate(written)


def normal(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size


def test_const_represents_its_interval_whatever_was_seen() -> None:
    for x in (torch.tensor([1000.0]), torch.zeros(3)):
        assert choose_scale([Seen.of(x, INT8)], strategy(strategy="const", a=-12.8, b=1)) == pytest.approx(0.1)
        assert choose_scale([Seen.of(x, INT8)], strategy(strategy="const", a=0, b=6)) == pytest.approx(6 / 127)
        assert choose_scale([Seen.of(x, RECTIFIED)], strategy(strategy="const", a=-9, b=6)) == pytest.approx(6 / 127)


def test_meanstd_represents_the_mean_and_so_many_deviations() -> None:
    x = torch.tensor([1.0, 3.0])  # mean 2, deviation 1
    assert choose_scale([Seen.of(x, RECTIFIED)], strategy(strategy="meanstd")) == pytest.approx(5 / 127)
    assert choose_scale([Seen.of(x, RECTIFIED)], strategy(strategy="meanstd", n_std=0.5)) == pytest.approx(2.5 / 127)
    assert choose_scale([Seen.of(x, INT8)], strategy(strategy="meanstd", n_std=10)) == pytest.approx(12 / 127)
    assert choose_scale([Seen.of(-x, INT8)], strategy(strategy="meanstd")) == pytest.approx(5 / 128)


@pytest.mark.parametrize(("percentile", "reach"), [(100, 100), (99, 99), (90, 90), (50.5, 51)])
def test_percentile_leaves_out_the_rest_on_either_side(percentile: float, reach: int) -> None:
    x = torch.arange(1.0, 101)
    asked = strategy(strategy="percentile", percentile=percentile)
    assert choose_scale([Seen.of(x, INT8)], asked) == pytest.approx(reach / 127)
    assert choose_scale([Seen.of(-x, INT8)], asked) == pytest.approx(reach / 128)


def test_mse_takes_the_power_of_two_of_least_error_where_it_must_be_one() -> None:
    x, qrange = normal(5000) ** 3, QRange(bitwidth=4, signed=True)
    seen = Seen.of(x, qrange)
    errors = {2.0**e: float(seen.error(torch.tensor([2.0**e]))) for e in range(-12, 4)}
    assert choose_scale([seen], strategy(strategy="mse"), base=1.0) == min(errors, key=lambda s: errors[s])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@given(
    st.integers(0, 2**31 - 1), st.floats(1e-6, 1e6), st.sampled_from(RANGES), st.sampled_from([None, 1.0, 0.3]),
    st.integers(1, 4),
)  # fmt: skip
def test_every_slice_gets_the_scale_that_it_would_get_alone(
    strategy: InitStrategy, seed: int, size: float, qrange: QRange, base: float | None, channels: int
) -> None:
    x = normal(channels, 40, seed=seed, size=size) * torch.logspace(-3, 1, channels).unsqueeze(1)
    scales = choose_scales([Seen.of(x, qrange, (0,))], strategy, base=base)
    assert scales.shape == (channels,)
    assert bool((scales > 0).all())
    assert bool(torch.isfinite(scales).all())
    alone = [choose_scale([Seen.of(row, qrange)], strategy, base=base) for row in x]
    assert scales.tolist() == pytest.approx(alone, rel=1e-9)
    if base is not None:
        exponents = torch.log2(scales / base)
        torch.testing.assert_close(exponents, exponents.round(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s.strategy != "mse"], ids=str)
@given(
    st.integers(0, 2**31 - 1),
    st.floats(1e-6, 1e6),
    st.sampled_from(RANGES),
    st.booleans(),
    st.sampled_from([None, 1.0]),
)
def test_the_interval_is_covered_on_the_sides_that_the_range_has(
    strategy: InitStrategy, seed: int, size: float, qrange: QRange, shifted: bool, base: float | None
) -> None:
    seen = Seen.of(normal(60, seed=seed, size=size) + (size if shifted else 0), qrange)
    a, b = (float(end) for end in seen.interval(strategy))
    scale = choose_scale([seen], strategy, base=base)
    slack = 1 + 1e-6
    assert qrange.hi * scale * slack >= b
    if qrange.lo < 0:
        assert qrange.lo * scale * slack <= a
    if base is None and max(b, -a if qrange.lo < 0 else 0) > 0:  # and no more than that
        assert qrange.hi * scale <= b * slack or qrange.lo * scale >= a * slack


@given(st.integers(0, 2**31 - 1), st.sampled_from(["minmax", "meanstd", "percentile"]))
def test_a_shared_scale_is_the_largest_of_those_alone(seed: int, name: str) -> None:
    seen = [Seen.of(normal(30, seed=seed + i, size=10.0**i), q) for i, q in enumerate((INT8, RECTIFIED, INT8))]
    alone = [choose_scale([s], strategy(strategy=name)) for s in seen]
    assert choose_scale(seen, strategy(strategy=name)) == pytest.approx(max(alone))


def test_a_shared_mse_scale_has_the_least_sum_of_errors() -> None:
    seen = [Seen.of(normal(4000, seed=i, size=s), QRange(n_levels=9, signed=True)) for i, s in enumerate((1.0, 1.5))]
    chosen = choose_scale(seen, strategy(strategy="mse"), base=1.0)

    def total(scale: float) -> float:
        return sum(float(s.error(torch.tensor([scale]))) for s in seen)

    assert total(chosen) == min(total(2.0**e) for e in range(-8, 4))


@pytest.mark.parametrize(
    ("values", "lo"),
    [
        ([0.0, 15.0], 0),
        ([-15.0, 0.0], -15),
        ([-5.0, 10.0], -5),
        ([-1.0, 14.0], -1),
        ([-100.0, -1.0], -15),  # zero must be represented
        ([1.0, 100.0], 0),
        ([0.0, 0.0], -8),
    ],
)
def test_a_free_offset_starts_where_the_values_do(values: list[float], lo: int) -> None:
    qrange = choose_offset(Seen.of(torch.tensor(values), FREE), strategy(strategy="minmax"))
    assert (qrange.lo, qrange.levels) == (lo, 16)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@given(st.integers(0, 2**31 - 1), st.floats(-3, 3), st.floats(1e-3, 1e3), st.integers(2, 8))
def test_a_free_offset_keeps_zero_and_wastes_little(
    strategy: InitStrategy, seed: int, mean: float, size: float, bits: int
) -> None:
    x = (normal(50, seed=seed) + mean) * size
    free = QRange(bitwidth=bits)
    qrange = choose_offset(Seen.of(x, free), strategy)
    assert qrange.levels == 2**bits
    assert qrange.lo <= 0 <= qrange.hi
    if strategy.strategy == "minmax":
        low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
        scale = choose_scale([Seen.of(x, qrange)], strategy)
        assert qrange.hi * scale * (1 + 1e-6) >= high
        assert (qrange.lo - 0.5 * (qrange.lo == 0)) * scale * (1 + 1e-6) <= low
        offsets = [QRange(n_levels=qrange.levels, offset=o) for o in range(-qrange.levels + 1, 0)]
        best = min(choose_scale([Seen.of(x, q)], strategy) for q in offsets if q.hi > 0 or high == 0)
        assert scale <= best * (1 + 1e-6)


def test_an_activation_quantiser_fixes_its_free_offset_once() -> None:
    quantiser = FakeQuantiser(QuantiserSpec(range=FREE, init=strategy(strategy="minmax")), FREE)
    assert not quantiser.rectifies
    quantiser.mode = "observe"
    quantiser(torch.tensor([-5.0, 10.0]))
    quantiser.fix_offset()
    assert (quantiser.qrange.lo, quantiser.qrange.hi) == (-5, 10)
    quantiser(torch.tensor([-500.0]))
    quantiser.fix_offset()
    assert quantiser.qrange.lo == -5


def test_twn_starts_at_the_mean_of_what_exceeds_its_threshold() -> None:
    weight = torch.tensor([[1.0, -2.0, 0.1, 0.1], [4.0, 4.0, -4.0, 0.0]])
    # mean |w| 0.8, threshold 0.56: of 1 and 2; mean 3, threshold 2.1: of the three 4s
    assert ternary_scale(weight, (0,)).tolist() == [1.5, 4.0]
    # mean 1.9, threshold 1.33: of 2, 4, 4, 4
    assert ternary_scale(weight, ()).tolist() == [3.5]
    assert ternary_scale(torch.zeros(2, 3), (0,)).tolist() == [1.0, 1.0]


def test_twn_clears_weights_below_its_threshold_only_by_the_scale_that_it_gives() -> None:
    weight = torch.tensor([1.0, -1.0, 0.2, -0.2])
    quantiser = WeightQuantiser(QuantiserSpec(range=QRange.model_validate("ternary"), function="ternary"))
    quantiser.calibrate(weight)
    assert quantiser(weight).tolist() == [1.0, -1.0, 0.0, 0.0]
    assert quantiser.integers(weight).tolist() == [1, -1, 0, 0]


def test_binary_starts_at_the_mean_magnitude_which_is_least_squares() -> None:
    weight = normal(3, 40)
    scales = binary_scale(weight, (0,))
    torch.testing.assert_close(scales, weight.abs().mean(1).double())
    for row, scale in zip(weight.double(), scales, strict=True):
        best = float((row - scale * row.sign()).square().sum())
        assert all(best < float((row - scale * f * row.sign()).square().sum()) for f in (0.99, 1.01))
    assert binary_scale(torch.zeros(2, 3), (0,)).tolist() == [1.0, 1.0]


def test_the_error_of_signs_is_that_of_signs() -> None:
    signs = QRange.model_validate("binary")
    x = torch.tensor([-0.5, 0.0, 3.0])
    assert float(Seen.of(x, signs).error(torch.tensor([1.0]))) == pytest.approx((0.25 + 1.0 + 4.0) / 3)


GRANULARITIES = {"per-array": (), "per-outchannel_weights": (4, 1, 1, 1), (0, 1): (4, 3, 1, 1), (1, 2, 3): (1, 3, 2, 2)}


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize(
    "spec",
    [
        {"range": "ternary", "function": "ternary"},
        {"range": "binary", "function": "binary"},
        {"range": {"bitwidth": 4, "signed": True}, "init": "minmax"},
        {"range": {"bitwidth": 4, "signed": True}, "function": "tqt"},
    ],
    ids=lambda s: s.get("function", "ste"),
)
def test_weights_have_one_scale_per_slice(granularity: Any, spec: dict[str, Any]) -> None:
    weight = normal(4, 3, 2, 2) * torch.logspace(-2, 2, 4).reshape(4, 1, 1, 1)
    quantiser = WeightQuantiser(QuantiserSpec.model_validate({**spec, "granularity": granularity}))
    quantiser.calibrate(weight)
    scale = quantiser.scale().detach()
    assert tuple(scale.shape) == GRANULARITIES[granularity]
    integers = quantiser.integers(weight).detach()
    torch.testing.assert_close(quantiser(weight).detach(), integers * scale)
    assert set(integers.unique().tolist()) <= set(quantiser.qrange.integers)
    if granularity == "per-outchannel_weights":
        for channel in range(4):
            alone = WeightQuantiser(QuantiserSpec.model_validate(spec))
            alone.calibrate(weight[channel])
            assert float(alone.scale().detach()) == pytest.approx(float(scale[channel]), rel=1e-6)


def test_weights_with_a_free_offset_get_a_range_that_fits_them() -> None:
    quantiser = WeightQuantiser(QuantiserSpec(range=QRange(bitwidth=4), init=strategy(strategy="minmax")))
    quantiser.calibrate(torch.tensor([-3.0, 12.0]))
    assert (quantiser.qrange.lo, quantiser.qrange.hi) == (-3, 12)
    assert quantiser(torch.tensor([-3.0, 12.0])).tolist() == [-3.0, 12.0]


def test_power_of_two_thresholds_start_at_the_best_powers_of_two() -> None:
    """Not at those above the best scales of any size: of sixteen sizes within an octave, some tell the difference."""
    weight = normal(1, 2000) ** 3 * torch.exp2(torch.arange(16) / 16).unsqueeze(1)
    qrange = QRange(bitwidth=4, signed=True)
    spec = QuantiserSpec(range=qrange, function="tqt", granularity="per-outchannel_weights")
    quantiser = WeightQuantiser(spec)
    quantiser.calibrate(weight)
    expected = choose_scales([Seen.of(weight, qrange, (0,))], strategy(strategy="mse"), base=1.0)
    assert quantiser.scale().detach().flatten().tolist() == expected.tolist()
    assert all(math.log2(scale).is_integer() for scale in expected.tolist())
