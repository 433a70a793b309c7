"""The compiled kernels give the bits of the tensor operations that stand in for them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dianaq_quant import kernels
from dianaq_quant.kernels import LONGEST_TILE, Noise, Shift, build
from dianaq_quant.quantisers.functions import floor_clip

needs_compiler = pytest.mark.skipif(build.library() is None, reason="there is no C compiler: nothing to compare")

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "with gaps": lambda x: torch.cat([x, x], dim=3)[..., ::2],
    "expanded": lambda x: x[:, :, :1, :1].expand(x.shape),
}
SHAPES = [(2, 5, 3, 3), (1, 16, 20, 20), (3, 1, 1, 1), (2, 300, 2, 3), (8, 64, 7, 5)]
INFINITE = (float("inf"), -float("inf"), float("nan"))


@contextmanager
def without_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", lambda: None)
        yield


def values(shape: tuple[int, ...], seed: int, spread: float = 40.0) -> Tensor:
    """Values on and off a grid of halves, beyond every range, and some that are no numbers."""
    generator = torch.Generator().manual_seed(seed)
    x = spread * torch.randn(shape, generator=generator)
    grid = torch.rand(shape, generator=generator) < 0.3
    x = torch.where(grid, (2 * x).round() / 2, x)
    x.view(-1)[: len(INFINITE)] = torch.tensor(INFINITE)[: x.numel()]
    return x


def both(compute: Callable[[], tuple[Tensor, ...]]) -> list[tuple[Tensor, Tensor]]:
    """Each result by a kernel and by tensor operations."""
    compiled = compute()
    with without_kernels():
        return list(zip(compiled, compute(), strict=True))


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(1e9), other.nan_to_num(1e9))


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantising_is_the_same_to_the_bit(shape: tuple[int, ...], layout: str) -> None:
    x, other, gradient = (LAYOUTS[layout](values(shape, seed)) for seed in range(3))
    for settings in (
        {"divisor": torch.tensor(0.3), "addend": 0.5, "factor": torch.tensor(0.3)},
        {"divisor": 8.0, "other": other},
    ):

        def through(factor: float, options: Mapping[str, Any] = settings) -> tuple[Tensor, Tensor, Tensor]:
            """What is quantised, with and without a mask, and a gradient that passes it."""
            y, mask = kernels.quantise(x, lo=-8, hi=7, **options)
            plain, none = kernels.quantise(x, lo=-8, hi=7, **options, mask=False)
            assert mask is not None
            assert none is None
            return y, plain, kernels.pass_inside(gradient, mask, factor)

        for factor in (1.0, 0.125):
            for one, another in both(lambda f=factor: through(f)):  # type: ignore[misc]
                assert same(one, another)


def noise_for(channels: int, seed: int, sigma: float = 0.5) -> Noise:
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(1 << 10, generator=generator)
    gain, error = (torch.randn(channels, generator=generator) for _ in range(2))
    first = int(torch.randint(1 << 10, (), generator=generator))
    return Noise(
        1 + 0.1 * gain, error, sigma, torch.cat([pool, pool, pool, pool, pool])[: (1 << 10) + LONGEST_TILE], first
    )


@needs_compiler
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("shift", [None, Shift(4.0, 0, 127)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_conversions_and_their_gradients_are_the_same_to_the_bit(
    shape: tuple[int, ...], layout: str, shift: Shift | None, noisy: bool
) -> None:
    channels = shape[1]
    v, gradient = LAYOUTS[layout](values(shape, 1).nan_to_num(0, 50, -50)), LAYOUTS[layout](torch.randn(shape))
    slope, offset = torch.randn(channels), 10 * torch.randn(channels)
    noise = noise_for(channels, 2, sigma=0.3) if noisy else None
    for one, another in both(lambda: kernels.convert(v, slope, offset, -32, 31, shift, noise)):
        assert same(one, another)
    _, code = kernels.convert(v, slope, offset, -32, 31, shift, noise)
    found = both(lambda: kernels.convert_backward(gradient, code, slope, shift, noise))
    assert same(*found[0])
    for one, another in found[1:]:  # sums, in another order
        torch.testing.assert_close(one, another, rtol=1e-6, atol=1e-5)


@needs_compiler
def test_sums_depend_on_the_number_of_threads_alone() -> None:
    v = values((16, 24, 16, 16), 0).nan_to_num(0, 50, -50).contiguous(memory_format=torch.channels_last)
    slope, gradient = torch.randn(24), torch.randn(v.shape).contiguous(memory_format=torch.channels_last)
    _, code = kernels.convert(v, slope, slope, -32, 31, None, None)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, *others = (kernels.convert_backward(gradient, code, slope, None, None) for _ in range(20))
        y, again = (kernels.convert(v, slope, slope, -32, 31, None, None)[0] for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    assert torch.equal(y, again)
    assert torch.equal(y, kernels.convert(v, slope, slope, -32, 31, None, None)[0])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("tiles", [False, True])
def test_noise_from_the_pool_goes_round_at_its_end(compiled: bool, tiles: bool) -> None:
    """Place by place in memory, from the first on; a converter of unit slope far from its ends shows it."""
    noise = noise_for(6, 0, sigma=1.0)
    zero = torch.zeros(40, 6, 5, 2).contiguous(memory_format=torch.channels_last)
    expected = torch.stack([noise.pool[(noise.first + i) % noise.size] for i in range(zero.numel())])
    expected = expected.reshape(40, 5, 2, 6) + noise.error
    if tiles:
        got = noise.disturb(zero).permute(0, 2, 3, 1)
        assert torch.equal(got, expected)
    elif compiled and build.library() is not None:
        y, _ = kernels.convert(zero, torch.ones(6), torch.zeros(6), -32, 31, None, noise)
        assert torch.equal(y.permute(0, 2, 3, 1), expected.floor())
    else:
        with without_kernels():
            y, _ = kernels.convert(zero, torch.ones(6), torch.zeros(6), -32, 31, None, noise)
        assert torch.equal(y.permute(0, 2, 3, 1), expected.floor())


@given(st.integers(1, 2000), st.integers(0, 2**31 - 1))
def test_the_gradient_is_that_of_the_operations_one_by_one(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    v = 30 * torch.randn((count % 7 + 1, count % 33 + 1, 2, 2), generator=generator)
    slope, offset = (torch.randn(v.shape[1], generator=generator) for _ in range(2))
    gradient = torch.randn(v.shape, generator=generator)
    shift = Shift(2.0, -100, 100)
    _, code = kernels.convert(v, slope, offset, -32, 31, shift, None)
    got = kernels.convert_backward(gradient, code, slope, shift, None)
    a = v.floor()
    converted = (a >= -32) & (a <= 31)
    a = a.clamp(-32, 31)
    y = ((offset.reshape(-1, 1, 1) + a * slope.reshape(-1, 1, 1)) / 2).floor()
    passed = gradient * ((y >= -100) & (y <= 100)) / 2
    torch.testing.assert_close(got[0], passed * slope.reshape(-1, 1, 1) * converted)
    torch.testing.assert_close(got[1], (passed * a).sum((0, 2, 3)), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(got[2], passed.sum((0, 2, 3)), rtol=1e-5, atol=1e-3)


def test_an_environment_variable_leaves_the_kernels_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.DISABLED, "1")
    build.library.cache_clear()
    try:
        assert build.library() is None
    finally:
        build.library.cache_clear()


def test_another_shape_is_broadcast_and_none_is_read_beyond_its_end() -> None:
    x, other = values((2, 5, 3, 3), 0).nan_to_num(0, 50, -50), torch.arange(5.0).reshape(5, 1, 1)
    y, _ = kernels.quantise(x, 1.0, -8, 7, other=other)
    assert torch.equal(y, (x + other).floor().clamp(-8, 7))


def test_a_gradient_of_the_gradient_is_refused() -> None:
    """It would not be right: the kernels' gradients are numbers, and no functions."""
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(floor_clip(2 * x, -8, 7).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("environment", "message"),
    [({"CC": "no-such-compiler"}, "no C compiler"), ({"CC": "false"}, "no compiled kernels")],
    ids=["none", "broken"],
)
def test_without_a_compiler_the_log_says_so_and_tensors_do_it(
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    build.library.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            y, _ = kernels.quantise(torch.tensor([1.4, 1.6]), 1.0, -8, 7, addend=0.5)
        assert y.tolist() == [1, 2]
        assert message in caplog.text
    finally:
        build.library.cache_clear()


@needs_compiler
def test_the_kernels_share_the_threads_of_torch_and_leave_no_file(tmp_path: Path) -> None:
    """A second OpenMP runtime would fight with that of torch for the processors."""
    code = (
        "import torch\n"
        "from dianaq_quant.kernels import build\n"
        "assert build.library() is not None\n"
        "maps = open('/proc/self/maps').read().splitlines()\n"
        "print(len({line.split()[-1] for line in maps if 'gomp' in line}))\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1"
    assert list(tmp_path.iterdir()) == []
