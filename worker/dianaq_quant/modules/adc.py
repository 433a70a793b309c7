"""The analog core's array and converter: row tiles, rounding to 6 bits, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.cores import Noise
from dianaq_quant.modules.structure import Geometry, convolve
from dianaq_quant.quantisers import floor_clip
from dianaq_quant.targets.diana import ADC, ANALOG_ROWS

POOL_SIZE = 1 << 22
"""Gaussian values that training draws its noise from, at a random place each time: drawing every value afresh takes as
long as the convolutions do, and a batch of the largest layers in use sees each value about once."""


@dataclass(frozen=True)
class RowTiles:
    """How the C_in kh kw rows of a layer are spread over arrays of 1152 rows: whole channels, evenly.

    Args:
        count: number of tiles, T.
        channels: input channels per tile; the last tile is filled up with zeros.
    """

    count: int
    channels: int

    @classmethod
    def of(cls, in_channels: int, kernel: tuple[int, int]) -> RowTiles:
        """The tiles of a layer.

        Raises:
            ValueError: one channel's kernel alone exceeds an array.
        """
        per_array = ANALOG_ROWS // (kernel[0] * kernel[1])
        if not per_array:
            raise ValueError(f"a kernel of {kernel[0]} x {kernel[1]} exceeds the {ANALOG_ROWS} rows of an array")
        count = -(-in_channels // per_array)
        return cls(count, -(-in_channels // count))

    def multiply(self, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        """Every tile's partial sum, by one grouped convolution.

        Args:
            x: (N, C_in, H, W).
            weight: (C_out, C_in, kh, kw).

        Returns:
            (N, C_out, H', W') with one tile, else (N, T, C_out, H', W').
        """
        if self.count == 1:
            return convolve(x, weight, None, geometry)
        missing = self.count * self.channels - weight.shape[1]
        if missing:
            x, weight = F.pad(x, (0, 0, 0, 0, 0, missing)), F.pad(weight, (0, 0, 0, 0, 0, missing))
        grouped = Geometry(geometry.stride, geometry.pads, geometry.dilation, self.count)
        sums = convolve(x, self.grouped(weight), None, grouped)
        return sums.reshape(len(sums), self.count, -1, *sums.shape[2:])

    def grouped(self, weight: Tensor) -> Tensor:
        """A weight of T * channels input channels as that of a convolution of T groups: (T C_out, channels, kh, kw)."""
        tiled = weight.reshape(len(weight), self.count, self.channels, *weight.shape[2:])
        return tiled.transpose(0, 1).reshape(-1, *tiled.shape[2:])

    def collect(self, converted: Tensor) -> Tensor:
        """The sum over tiles; (N, C_out, H', W')."""
        return converted if self.count == 1 else converted.sum(1)


class Adc(nn.Module):
    """The converter at the foot of each column: `clip(floor(acc / g), -32, 31)`, with or without noise.

    Attributes:
        gain: g, accumulator steps per converter step; one power of two per layer.
    """

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain: Tensor
        self.register_buffer("gain", torch.tensor(gain))
        self.silence()

    def silence(self) -> None:
        """No noise: as the exported network, and every reported accuracy, has it."""
        self._noise: Noise | None = None
        self._seed, self._calls, self._chip = 0, 0, False

    def disturb(self, noise: Noise, seed: int, *, chip: bool = False) -> None:
        """Noise from now on, while training; or, for one imagined `chip` with columns of its own, always."""
        self._noise, self._seed, self._calls, self._chip = noise, seed, 0, chip

    @property
    def calls(self) -> int:
        """Batches that were disturbed since `disturb`: where in its random numbers the noise is."""
        return self._calls

    def resume(self, calls: int) -> None:
        """Go on with the noise behind so many batches."""
        self._calls = calls

    def forward(self, v: Tensor) -> Tensor:
        """Convert; `v` is in converter steps, its third dimension from the end is the column."""
        if self._noise is not None and (self.training or self._chip):
            v = self._disturbed(v, self._noise)
        return floor_clip(v, ADC.lo, ADC.hi)

    def _disturbed(self, v: Tensor, noise: Noise) -> Tensor:
        """`v (1 + gain error) + offset + Gaussian`; errors of columns are new in each batch unless it is one chip."""
        generator = torch.Generator().manual_seed(self._seed if self._chip else self._seed + self._calls)
        columns = (*v.shape[1:-2], 1, 1)
        if noise.column_gain:
            v = v * (1 + noise.column_gain * torch.randn(columns, generator=generator)).to(v)
        if noise.column_offset:
            v = v + (noise.column_offset * torch.randn(columns, generator=generator)).to(v)
        self._calls += 1
        if not noise.gaussian:
            return v
        if self._chip:
            generator.manual_seed(self._seed + self._calls)
            return v + (noise.gaussian * torch.randn(v.shape, generator=generator)).to(v)
        return torch.add(v, _pooled(v, generator), alpha=noise.gaussian)


_pools: dict[torch.device, Tensor] = {}


def _pooled(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gaussian values from the pool, of a tensor's shape and memory order."""
    if like.device not in _pools:
        values = torch.randn(POOL_SIZE, generator=torch.Generator().manual_seed(0))
        _pools[like.device] = values.to(like.device)
    pool = _pools[like.device]
    start = int(torch.randint(POOL_SIZE, (), generator=generator))
    repeats = -(-(start + like.numel()) // POOL_SIZE)
    flat = (pool.repeat(repeats) if repeats > 1 else pool)[start : start + like.numel()]
    return flat.as_strided(like.shape, like.stride()) if _is_dense(like) else flat.view(like.shape)


def _is_dense(x: Tensor) -> bool:
    """Whether a tensor's strides are a permutation of contiguous ones."""
    expected = 1
    for size, stride in sorted(zip(x.shape, x.stride(), strict=True), key=lambda pair: pair[1]):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def converters(network: nn.Module) -> list[Adc]:
    """A network's converters, in the order of its modules."""
    return [m for m in network.modules() if isinstance(m, Adc)]


def disturb(network: nn.Module, noise: Noise, seed: int, *, chip: bool = False) -> None:
    """Noise in every converter of a network, each with random numbers of its own; see `Adc.disturb`."""
    generator = torch.Generator().manual_seed(seed)
    for adc in converters(network):
        adc.disturb(noise, int(torch.randint(2**62, (), generator=generator)), chip=chip)


def silence(network: nn.Module) -> None:
    """No noise in any converter of a network."""
    for adc in converters(network):
        adc.silence()
