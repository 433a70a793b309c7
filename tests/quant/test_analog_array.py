"""The analog array: row tiles, the converter, and its noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dianaq.schemas.cores import Noise
from dianaq_quant.modules.adc import Adc, RowTiles, disturb, silence
from dianaq_quant.modules.structure import Geometry

from .numpy_chip import convolution, tiles
from .support import integers

PLAIN = Geometry((1, 1), (0, 0, 0, 0), (1, 1), 1)


@pytest.mark.parametrize(
    ("channels", "kernel", "count", "per_tile"),
    [
        (128, (3, 3), 1, 128),
        (129, (3, 3), 2, 65),
        (256, (3, 3), 2, 128),
        (257, (3, 3), 3, 86),
        (1152, (1, 1), 1, 1152),
        (1153, (1, 1), 2, 577),
        (46, (5, 5), 1, 46),
        (47, (5, 5), 2, 24),
        (3, (32, 36), 3, 1),
    ],
)
def test_tiles_are_as_few_and_as_even_as_the_rows_allow(
    channels: int, kernel: tuple[int, int], count: int, per_tile: int
) -> None:
    found = RowTiles.of(channels, kernel)
    assert (found.count, found.channels) == (count, per_tile)
    parts = tiles(channels, kernel)
    assert len(parts) == count
    assert all(part.stop > part.start for part in parts)  # no tile is all padding


def test_a_kernel_beyond_an_array_is_refused() -> None:
    with pytest.raises(ValueError, match="a kernel of 34 x 34 exceeds the 1152 rows of an array"):
        RowTiles.of(1, (34, 34))


@pytest.mark.parametrize(("channels", "count"), [(3, 1), (4, 2), (5, 2), (7, 3), (9, 3)])
@pytest.mark.parametrize(
    "geometry", [PLAIN, Geometry((2, 1), (1, 0, 2, 1), (1, 1), 1), Geometry((1, 2), (1, 1, 1, 1), (2, 1), 1)], ids=str
)
def test_one_grouped_convolution_equals_a_loop_over_tiles(channels: int, count: int, geometry: Geometry) -> None:
    x, weight = integers(2, channels, 6, 5, lo=-63, hi=63), integers(4, channels, 3, 2, lo=-1, hi=1, seed=1)
    layout = RowTiles(count, -(-channels // count))
    got = layout.multiply(x, weight, geometry)
    none, size = np.zeros(4, dtype=np.int64), layout.channels
    xs, ws = (t.numpy().astype(np.int64) for t in (x, weight))
    sums = [
        convolution(xs[:, i * size : (i + 1) * size], ws[:, i * size : (i + 1) * size], none, geometry)
        for i in range(count)
    ]
    expected = sums[0] if count == 1 else np.stack(sums, axis=1)
    assert np.array_equal(got.numpy(), expected)
    assert np.array_equal(layout.collect(got).numpy(), np.sum(sums, axis=0))


def test_the_grouped_weight_has_each_tiles_channels_for_all_outputs() -> None:
    weight = torch.arange(2 * 6.0).reshape(2, 6, 1, 1)
    grouped = RowTiles(3, 2).grouped(weight)
    assert grouped.shape == (6, 2, 1, 1)
    assert grouped.flatten(1).tolist() == [[0, 1], [6, 7], [2, 3], [8, 9], [4, 5], [10, 11]]


def columns(*values: float) -> Tensor:
    """Converter steps as (1, C, 1, 1), one column each."""
    return torch.tensor(values).reshape(1, -1, 1, 1)


def test_the_converter_floors_and_saturates() -> None:
    v = columns(-1e9, -33.0, -32.01, -32.0, -0.5, 0.0, 0.99, 31.0, 31.99, 32.0, 1e9)
    expected = [-32, -32, -32, -32, -1, 0, 0, 31, 31, 31, 31]
    converter = Adc()
    assert converter(v).flatten().tolist() == expected
    assert converter(v.clone().requires_grad_()).flatten().tolist() == expected
    before = v.clone()
    converter(v)
    assert torch.equal(v, before)


def test_gradients_pass_where_the_converter_does_not_saturate() -> None:
    v = columns(-32.01, -32.0, 0.5, 31.99, 32.0).requires_grad_()
    Adc()(v).backward(columns(1.0, 2.0, 3.0, 4.0, 5.0))
    assert v.grad is not None
    assert v.grad.flatten().tolist() == [0, 2, 3, 4, 0]


def noisy(noise: Noise, seed: int = 3, *, chip: bool = False) -> Adc:
    converter = Adc()
    converter.disturb(noise, seed, chip=chip)
    return converter


def disturbance(converter: Adc, v: Tensor) -> Tensor:
    """What noise adds to the converter's input."""
    return converter.disturbed(v) - v


ALL = Noise(gaussian=0.5, column_gain=0.1, column_offset=0.25)
V = torch.linspace(-20, 20, 2 * 6 * 5 * 4).reshape(2, 6, 5, 4)


@pytest.mark.parametrize("chip", [False, True])
def test_the_same_seed_gives_the_same_noise(chip: bool) -> None:
    first, second, other = (noisy(ALL, seed, chip=chip) for seed in (1, 1, 2))
    for _ in range(3):
        a, b, c = first(V), second(V), other(V)
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@pytest.mark.parametrize("noise", [ALL, Noise(gaussian=1), Noise(column_gain=0.3), Noise(column_offset=1)], ids=str)
def test_noise_is_for_training_and_for_chips_only(noise: Noise) -> None:
    clean = Adc()(V)
    trained, chip = noisy(noise), noisy(noise, chip=True)
    assert not torch.equal(trained(V), clean)
    assert torch.equal(trained.eval()(V), clean)
    assert not torch.equal(chip.eval()(V), clean)
    for converter in (trained.train(), chip):
        converter.silence()
        assert torch.equal(converter(V), clean)


def test_a_networks_converters_are_disturbed_each_in_its_own_way_and_silenced_together() -> None:
    network = nn.ModuleList([Adc(), nn.ReLU(), Adc()])
    disturb(network, Noise(gaussian=1.0), seed=5)
    first, second = network[0](V), network[2](V)
    assert not torch.equal(first, second)
    disturb(network, Noise(gaussian=1.0), seed=5)
    assert torch.equal(network[0](V), first)
    silence(network)
    assert torch.equal(network[0](V), Adc()(V))
    assert torch.equal(network[2](V), Adc()(V))


@pytest.mark.parametrize("chip", [False, True])
def test_gaussian_noise_has_its_deviation_and_no_pattern(chip: bool) -> None:
    got = disturbance(noisy(Noise(gaussian=0.5), chip=chip), torch.zeros(8, 4, 40, 40))
    assert float(got.mean()) == pytest.approx(0, abs=0.02)
    assert float(got.std()) == pytest.approx(0.5, rel=0.02)
    assert float((got[:, 0] * got[:, 1]).mean()) == pytest.approx(0, abs=0.02)
    assert len(got.unique()) > 0.9 * got.numel()


@pytest.mark.parametrize("chip", [False, True])
@pytest.mark.parametrize("shape", [(3, 500, 2, 2), (3, 2, 250, 2, 2)], ids=["one tile", "two tiles"])
def test_columns_have_one_offset_and_one_gain_each(chip: bool, shape: tuple[int, ...]) -> None:
    ones = torch.ones(shape)
    for noise, deviation in ((Noise(column_offset=0.25), 0.25), (Noise(column_gain=0.1), 0.1)):
        got = disturbance(noisy(noise, chip=chip), ones)
        per_column = got[0, ..., 0, 0]
        torch.testing.assert_close(got, per_column[..., None, None].expand(shape))
        assert float(per_column.std()) == pytest.approx(deviation, rel=0.15)
    gain = noisy(Noise(column_gain=0.1), chip=chip)
    assert torch.equal(disturbance(gain, torch.zeros(shape)), torch.zeros(shape))
    offset = noisy(Noise(column_offset=0.25), chip=chip)
    first = disturbance(noisy(Noise(column_offset=0.25), chip=chip), torch.zeros(shape))
    torch.testing.assert_close(disturbance(offset, 7 * ones), first, rtol=0, atol=1e-5)


def test_columns_are_drawn_afresh_for_each_batch_but_fixed_for_a_chip() -> None:
    noise, zeros = Noise(column_offset=1.0), torch.zeros(1, 8, 1, 1)
    training, chip = noisy(noise), noisy(noise, chip=True)
    assert not torch.equal(disturbance(training, zeros), disturbance(training, zeros))
    assert torch.equal(disturbance(chip, zeros), disturbance(chip, zeros))
    both = Noise(column_offset=1.0, gaussian=0.01)
    chip = noisy(both, chip=True)
    first, second = disturbance(chip, zeros), disturbance(chip, zeros)
    assert not torch.equal(first, second)  # each conversion has noise of its own
    assert float((first - second).abs().max()) < 0.1


def test_noise_passes_gradients() -> None:
    v = torch.full((1, 50, 1, 1), 3.3, requires_grad=True)
    noisy(Noise(column_gain=0.2, gaussian=0.5))(v).sum().backward()
    assert v.grad is not None
    assert 0.1 < float(v.grad.std()) < 0.3  # the columns' gains
    assert float(v.grad.mean()) == pytest.approx(1, abs=0.15)
