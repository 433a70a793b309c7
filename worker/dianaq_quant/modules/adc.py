"""The analog core's array and converter: row tiles, rounding to 6 bits, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.schemas.cores import Noise
from dianaq_quant import gaussian, kernels
from dianaq_quant.modules.structure import Geometry, convolve
from dianaq_quant.quantisers.functions import convert, floor_clip
from dianaq_quant.targets.diana import ADC, ANALOG_ROWS


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
        return floor_clip(self.disturbed(v), ADC.lo, ADC.hi)

    def disturbed(self, v: Tensor) -> Tensor:
        """What is converted: with the noise of the next batch or of the chip, if there is any."""
        if self._noise is not None and self._chip:
            return self._chip_disturbed(v, self._noise)
        noise = self._next_noise(v)
        return v if noise is None else noise.disturb(v)

    def affine(
        self, v: Tensor, tiles: RowTiles, slope: Tensor, offset: Tensor, shift: kernels.Shift | None = None
    ) -> Tensor:
        """Convert, sum the tiles, and `offset + slope * a`, (C,) each; then the shift if there is one."""
        if tiles.count == 1 and not self._chip:
            return convert(v, slope, offset, ADC.lo, ADC.hi, shift, self._next_noise(v))
        a = tiles.collect(self(v))
        y = torch.addcmul(offset.reshape(1, -1, 1, 1), a, slope.reshape(1, -1, 1, 1))
        return y if shift is None else floor_clip(y, shift.lo, shift.hi, divisor=shift.divisor)

    def _columns(self, v: Tensor, noise: Noise, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Gain and error of each column."""
        gain, error = torch.ones(v.shape[1:-2]), torch.zeros(v.shape[1:-2])
        if noise.column_gain:
            gain = 1 + noise.column_gain * torch.randn(gain.shape, generator=generator)
        if noise.column_offset:
            error = noise.column_offset * torch.randn(error.shape, generator=generator)
        return gain.to(v), error.to(v)

    def _next_noise(self, v: Tensor) -> kernels.Noise | None:
        """That of the next batch while training, errors of columns included; None where there is none."""
        if self._noise is None or not self.training:
            return None
        generator = torch.Generator().manual_seed(self._seed + self._calls)
        self._calls += 1
        gain, error = self._columns(v, self._noise, generator)
        first = int(torch.randint(gaussian.POOL_SIZE, (), generator=generator))
        pool = gaussian.pool(v.device, kernels.LONGEST_TILE)
        return kernels.Noise(gain, error, self._noise.gaussian, pool, first)

    def _chip_disturbed(self, v: Tensor, noise: Noise) -> Tensor:
        """By the columns' errors of one chip, and Gaussian noise that is new in each conversion."""
        gain, error = self._columns(v, noise, torch.Generator().manual_seed(self._seed))
        v = v * gain.reshape(*gain.shape, 1, 1) + error.reshape(*error.shape, 1, 1)
        self._calls += 1
        if not noise.gaussian:
            return v
        generator = torch.Generator().manual_seed(self._seed + self._calls)
        return v + (noise.gaussian * torch.randn(v.shape, generator=generator)).to(v)


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
