"""Each augmentation on its own, with what is random given."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dianaq_quant import gaussian
from dianaq_quant.training.augment import (
    clear,
    cut_out,
    disturb,
    draw_shares,
    mix,
    move,
    partners,
    places,
    rotate,
    spread,
)

LAST = torch.channels_last


def maps(n: int = 4, c: int = 3, h: int = 6, w: int = 5) -> Tensor:
    """Channels-last maps, no two values of which are equal, nor 0."""
    return (1 + torch.arange(n * c * h * w).float()).reshape(n, c, h, w).contiguous(memory_format=LAST)


NOWHERE = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_the_chosen_maps_are_mirrored(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = (maps() % 251).to(dtype).contiguous(memory_format=layout)
    chosen = torch.tensor([True, False, False, True])
    found = move(x, chosen, NOWHERE, NOWHERE, 0)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=LAST)
    for before, after, mirrored in zip(x, found, chosen, strict=True):
        assert torch.equal(after, before.flip(2) if mirrored else before)
    assert torch.equal(move(x, None, NOWHERE, NOWHERE, 0), x)


@pytest.mark.parametrize("chosen", [None, [True, False, True, True]])
@pytest.mark.parametrize(
    ("down", "right", "most"),
    [([0, 2, -1, 1], [0, -1, 3, 0], (2, 3)), ([-6, 6, -6, 6], [-5, 5, 5, -5], (6, 5)), ([1, 0, 0, 1], [0] * 4, (1, 0))],
)
def test_maps_are_moved_and_zeros_come_in(
    chosen: list[bool] | None, down: list[int], right: list[int], most: tuple[int, int]
) -> None:
    x = maps()
    by = torch.tensor(down), torch.tensor(right)
    found = move(x, None if chosen is None else torch.tensor(chosen), *by, most[1])
    found = clear(found.clone(), *by, most)
    assert found.is_contiguous(memory_format=LAST)
    for i, (d, r) in enumerate(zip(down, right, strict=True)):
        before = x[i].flip(2) if chosen and chosen[i] else x[i]
        expected = torch.zeros_like(before)
        for row in range(6):
            for column in range(5):
                if 0 <= row - d < 6 and 0 <= column - r < 5:
                    expected[:, row, column] = before[:, row - d, column - r]
        assert torch.equal(found[i], expected)


def test_a_quarter_turn_is_exact() -> None:
    x = maps(2, 2, 5, 5)
    found = rotate(x, torch.tensor([90.0, -180.0]))
    assert found.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(found[0], x[0].rot90(1, (1, 2)), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(found[1], x[1].flip((1, 2)), atol=1e-3, rtol=1e-5)


def test_a_turn_keeps_distances_on_maps_that_are_no_squares() -> None:
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 26] = 1.0  # 6 to the right of the centre
    found = rotate(x, torch.tensor([30.0]))[0, 0]
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(41.0), indexing="ij")
    up = 10 - float((found * rows).sum() / found.sum())
    right = float((found * columns).sum() / found.sum()) - 20
    assert math.hypot(up, right) == pytest.approx(6, abs=0.05)
    assert math.degrees(math.atan2(up, right)) == pytest.approx(30, abs=0.5)


def test_what_comes_in_by_a_turn_is_zero() -> None:
    found = rotate(torch.ones(1, 3, 8, 8), torch.tensor([45.0]))
    assert found[0, :, 0, 0].tolist() == [0, 0, 0]
    assert found[0, :, 4, 4].tolist() == pytest.approx([1, 1, 1])


def test_a_rectangle_is_set_to_zero_in_all_channels() -> None:
    x = maps()
    row, column = torch.tensor([0, 2, -1, 5]), torch.tensor([0, 1, 3, -2])
    found = cut_out(x.clone(memory_format=torch.preserve_format), row, column, (2, 3))
    for before, after, r, c in zip(x, found, row.tolist(), column.tolist(), strict=True):
        expected = before.clone()
        expected[:, max(0, r) : max(0, r + 2), max(0, c) : max(0, c + 3)] = 0
        assert torch.equal(after, expected)


@pytest.mark.parametrize("x", [maps(), torch.arange(8.0).reshape(4, 2)], ids=["maps", "vectors"])
def test_samples_are_mixed_with_the_one_before_by_their_shares(x: Tensor) -> None:
    shares = torch.tensor([1.0, 0.0, 0.25, 0.5])
    found = mix(x, shares)
    for i, share in enumerate(shares.tolist()):
        torch.testing.assert_close(found[i], share * x[i] + (1 - share) * x[i - 1])
    assert partners(torch.arange(4)).tolist() == [3, 0, 1, 2]
    assert x.dim() != 4 or found.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("size", [1 << 22, 16])
@pytest.mark.parametrize("x", [maps(), torch.arange(8.0).reshape(4, 2)], ids=["maps", "vectors"])
def test_noise_is_read_from_the_pool_as_a_sample_lies_in_memory(
    x: Tensor, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian, "_held", {})
    monkeypatch.setattr(gaussian, "POOL_SIZE", size)
    found = x.clone(memory_format=torch.preserve_format)
    first = torch.tensor([0, 5, size - 1, 5])
    assert disturb(found, 0.5, first) is found
    values = gaussian.pool(x.device, 0)
    assert len(values) == size
    assert float(values.std()) == pytest.approx(1, abs=0.3)
    for before, after, start in zip(x, found, first.tolist(), strict=True):
        stored = before.permute(1, 2, 0) if before.dim() == 3 else before
        noise = values[(start + torch.arange(stored.numel())) % size].view_as(stored)
        expected = stored + 0.5 * noise
        torch.testing.assert_close(after, expected.permute(2, 0, 1) if before.dim() == 3 else expected)


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 8.0])
def test_shares_have_the_moments_of_their_distribution(alpha: float) -> None:
    found = draw_shares(40_000, alpha, torch.Generator().manual_seed(0))
    assert found.dtype == torch.float32
    assert bool(((found >= 0) & (found <= 1)).all())
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.var()) == pytest.approx(variance, rel=0.03)


def test_numbers_fall_on_every_integer_alike_and_on_no_other() -> None:
    uniform = (torch.arange(700) + 0.5) / 700
    assert places(uniform, 7).bincount().tolist() == [100] * 7
    assert spread(uniform, 3).unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert spread(uniform, 0).unique().tolist() == [0]
    largest = torch.tensor([1 - 2**-24])
    assert all(int(places(largest, count)) == count - 1 for count in range(1, 2000))
