"""Observers of every granularity: what they know equals what torch computes on all the data at once."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dianaq_quant.quantisers import Observer
from dianaq_quant.quantisers.observer import SAMPLE_LIMIT, slices

SHAPE = (3, 4, 2, 5)
GRANULARITIES = [(), (0,), (1,), (0, 1), (1, 3), (0, 1, 2, 3)]


def observed(dimensions: tuple[int, ...], *batches: Tensor) -> Observer:
    observer = Observer(dimensions)
    for batch in batches:
        observer.observe(batch)
    return observer


def statistics(observer: Observer) -> dict[str, Tensor]:
    return {name: getattr(observer, name) for name in ("lo", "hi", "mean", "variance")}


@pytest.mark.parametrize("dimensions", GRANULARITIES, ids=str)
def test_slices_are_in_row_major_order_of_their_dimensions(dimensions: tuple[int, ...]) -> None:
    x = torch.arange(120.0).reshape(SHAPE)
    got = slices(x, dimensions)
    places = itertools.product(*(range(SHAPE[d]) for d in dimensions))
    for row, place in zip(got, places, strict=True):
        index: list[int | slice] = [slice(None)] * 4
        for d, at in zip(dimensions, place, strict=True):
            index[d] = at
        assert sorted(row.tolist()) == sorted(x[tuple(index)].flatten().tolist())


def test_a_dimension_that_a_tensor_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a tensor of shape \(3, 4\) has no dimensions \(0, 2\)"):
        slices(torch.zeros(3, 4), (0, 2))


@pytest.mark.parametrize("dimensions", GRANULARITIES, ids=str)
@given(st.integers(0, 2**31 - 1), st.integers(1, 5), st.sampled_from([0.0, -3.0, 1e6]))
def test_statistics_are_those_of_the_concatenation(
    dimensions: tuple[int, ...], seed: int, count: int, mean: float
) -> None:
    """Several tensors of one shape, as a weight that is seen at several times."""
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(SHAPE, generator=generator) * (i + 1) + mean for i in range(count)]
    rows = torch.cat([slices(b, dimensions) for b in batches], dim=1).double()
    observer = observed(dimensions, *batches)
    assert torch.equal(observer.lo, rows.amin(1))
    assert torch.equal(observer.hi, rows.amax(1))
    torch.testing.assert_close(observer.mean, rows.mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(observer.variance, rows.var(1, correction=0), rtol=1e-7, atol=1e-12)
    assert observer.count == rows.shape[1]
    assert torch.equal(observer.sample.sort(1).values.double(), rows.sort(1).values)


@pytest.mark.parametrize("dimensions", [(), (1,), (1, 3)], ids=str)
def test_batches_of_different_sizes_weigh_by_their_size(dimensions: tuple[int, ...]) -> None:
    x = torch.randn(20, 3, 4, 2, generator=torch.Generator().manual_seed(0)) + torch.arange(20.0).reshape(-1, 1, 1, 1)
    rows = slices(x, dimensions).double()
    for sizes in ([20], [1, 19], [7, 7, 6], [1] * 20):
        observer = observed(dimensions, *x.split(sizes))
        torch.testing.assert_close(observer.mean, rows.mean(1), rtol=1e-12, atol=0)
        torch.testing.assert_close(observer.variance, rows.var(1, correction=0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dimensions", [(), (1,)], ids=str)
@given(st.permutations(list(range(5))), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_observers_merge_in_any_order_and_grouping(
    dimensions: tuple[int, ...], order: list[int], cut: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(2 + i, 3, 4, generator=generator) * 10.0**i for i in range(5)]
    whole = observed(dimensions, *batches)
    left = observed(dimensions, *(batches[i] for i in order[:cut]))
    right = observed(dimensions, *(batches[i] for i in order[cut:]))
    left.merge(right)
    for name, value in statistics(whole).items():
        torch.testing.assert_close(getattr(left, name), value, rtol=1e-10, atol=1e-10)
    assert left.count == whole.count
    assert torch.equal(left.sample.sort(1).values, whole.sample.sort(1).values)


@pytest.mark.parametrize("dimensions", [(), (1,)], ids=str)
def test_a_mean_far_beyond_the_deviation_costs_no_precision(dimensions: tuple[int, ...]) -> None:
    """In float32, neighbours of 10^6 are a sixteenth apart, and sums of 10^7 such values lose the deviation."""
    x = torch.randn(64, 50, 20, generator=torch.Generator().manual_seed(0)) + 1e6
    observer = observed(dimensions, *x.split(16))
    rows = slices(x, dimensions).double()
    torch.testing.assert_close(observer.variance, rows.var(1, correction=0), rtol=1e-6, atol=0)
    torch.testing.assert_close(observer.mean, rows.mean(1), rtol=1e-14, atol=0)
    assert bool(((observer.variance - 1).abs() < 0.15).all())


def test_merging_nothing_changes_nothing_and_merging_into_nothing_takes_everything() -> None:
    seen, empty = observed((), torch.arange(4.0)), Observer()
    seen.merge(empty)
    assert (seen.count, float(seen.mean), float(seen.variance)) == (4, 1.5, 1.25)
    empty.merge(seen)
    assert (empty.count, float(empty.mean), float(empty.variance)) == (4, 1.5, 1.25)


@pytest.mark.parametrize(
    ("first", "second"), [((), (0,)), ((0,), ()), ((0,), (1,)), ((0,), (0, 1))], ids=lambda d: str(d)
)
def test_observers_of_unlike_dimensions_do_not_merge(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    x = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="observers of different slices cannot be merged"):
        observed(first, x).merge(observed(second, x))
    with pytest.raises(ValueError, match="observers of different slices cannot be merged"):
        Observer(first).merge(observed(second, x))


def test_observers_of_unlike_numbers_of_slices_do_not_merge() -> None:
    observer = observed((0,), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"2 along \(0,\), 3 along \(0,\)"):
        observer.observe(torch.zeros(3, 3))


@pytest.mark.parametrize("name", ["lo", "hi", "mean", "variance", "sample"])
def test_nothing_is_known_before_anything_was_observed(name: str) -> None:
    with pytest.raises(RuntimeError, match="no forward pass has been observed"):
        getattr(Observer((0,)), name)


@pytest.mark.parametrize("channels", [1, 8])
def test_the_sample_is_bounded_over_all_slices(channels: int) -> None:
    observer = Observer((0,))
    for start in range(6):
        size = SAMPLE_LIMIT // 2 // channels
        observer.observe((torch.arange(float(size)) + start * size).expand(channels, -1))
    sample = observer.sample
    assert sample.shape[0] == channels
    assert SAMPLE_LIMIT / 9 <= sample.numel() <= SAMPLE_LIMIT
    assert observer.count == 6 * size
    parts = torch.histc(sample[0], 6, 0, 6 * size) / sample.shape[1]  # every batch has its share
    assert float((parts - 1 / 6).abs().max()) < 0.01


def test_a_slice_keeps_at_least_one_value_of_each_batch() -> None:
    """More slices than the sample holds values: nothing is thinned away altogether."""
    observer = observed((0,), torch.ones(SAMPLE_LIMIT + 1, 2), torch.zeros(SAMPLE_LIMIT + 1, 2))
    assert sorted(observer.sample[0].tolist()) == [0, 1]


def test_observed_tensors_are_not_kept_alive_or_differentiated() -> None:
    x = torch.zeros(8, requires_grad=True)
    observer = observed((), x)
    assert not observer.sample.requires_grad
    with torch.no_grad():
        x.add_(5)
    assert observer.sample.tolist() == [[0.0] * 8]
