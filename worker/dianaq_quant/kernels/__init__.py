"""What quantisers do to whole tensors, in one pass over memory on the CPU (`kernels.c`), else by tensor operations.

Both ways give the same bits, except that sums over a batch may differ in their last one. Every function takes and gives
float32 tensors of any memory format.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dianaq_quant.kernels.build import library

CONVERTED, REQUANTISED = 0x40, 0x80
"""Flags of a conversion's code: the converter, or the requantisation behind it, has clipped nothing."""
RESULT, OFFSET = 0x3F, 32
"""A conversion's code holds the converter's 6-bit result, plus 32."""

LONGEST_TILE = 4096
"""Values of noise that are read at once at most: a pool of noise has so many of its first values at its end again."""
MOST_CHANNELS = LONGEST_TILE - 256
"""A tile is of whole rows of channels, and 256 values more at most."""


@dataclass(frozen=True)
class Noise:
    """`v * gain + error + sigma * pool[first + place]`, place counted in memory.

    Args:
        gain, error: of each column, (C,).
        pool: values to draw from: a power of two of them, and the first `LONGEST_TILE` again.
    """

    gain: Tensor
    error: Tensor
    sigma: float
    pool: Tensor
    first: int

    @property
    def size(self) -> int:
        """Different values in the pool."""
        return len(self.pool) - LONGEST_TILE

    def disturb(self, v: Tensor) -> Tensor:
        """The same by tensor operations; the channel is the third dimension from the end, others before it too."""
        v = v * self.gain.reshape(*self.gain.shape, 1, 1) + self.error.reshape(*self.error.shape, 1, 1)
        if not self.sigma:
            return v
        v = v if _is_dense(v) else v.contiguous()
        # Not `add` with a factor, which would round once where the kernel rounds twice.
        return v + (self.sigma * self._drawn(v.numel())).as_strided(v.shape, v.stride())

    def _drawn(self, count: int) -> Tensor:
        """So many values of the pool, from `first` on and round its end; (count,)."""
        whole, end = self.pool[: self.size], self.first + count
        pieces = [whole[self.first : end], *[whole] * (end // self.size - 1)]
        if end > self.size:
            pieces.append(whole[: end % self.size])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


@dataclass(frozen=True)
class Shift:
    """`clip(floor(y / divisor), lo, hi)`; the divisor is a power of two."""

    divisor: float
    lo: int
    hi: int


@dataclass(frozen=True)
class Mask:
    """Where nothing was clipped: a tensor to keep for the gradient.

    Args:
        values: bool, of the result's shape; or, of a compiled kernel, a bit for each value of it in memory, (n,) uint8.
        strides: those of the result.
    """

    values: Tensor
    strides: tuple[int, ...]


def quantise(
    x: Tensor,
    divisor: Tensor | float,
    lo: int,
    hi: int,
    *,
    addend: float = 0.0,
    factor: Tensor | float = 1.0,
    other: Tensor | None = None,
    mask: bool = True,
) -> tuple[Tensor, Mask | None]:
    """`clip(floor((x + other) / divisor + addend), lo, hi) * factor`, and where nothing was clipped.

    Args:
        x: any shape.
        divisor, factor: numbers, or tensors that broadcast over x.
        other: of the same shape.
        mask: whether to say where nothing was clipped; None else.
    """
    compiled = library()
    scalar = all(not isinstance(value, Tensor) or value.numel() == 1 for value in (divisor, factor))
    fits = other is None or (other.shape == x.shape and other.dtype == x.dtype and other.device == x.device)
    if compiled is None or not scalar or not fits or not _is_plain(x):
        value = x if other is None else x + other
        rounded = torch.div(value, divisor).add_(addend).floor_()
        clipped = rounded.clamp(lo, hi)
        inside = Mask(clipped == rounded, clipped.stride()) if mask else None
        return clipped.mul_(factor), inside
    other = None if other is None else _laid_out(other, x.stride())
    y = torch.empty_like(x)
    bits = torch.empty(-(-x.numel() // 8), dtype=torch.uint8) if mask else None
    compiled.quantise(_at(x), _at(other), _at(y), _at(bits), x.numel(), divisor, addend, lo, hi, factor)
    return y, None if bits is None else Mask(bits, y.stride())


def pass_inside(gradient: Tensor, inside: Mask, factor: float = 1.0) -> Tensor:
    """`gradient * factor` where nothing was clipped, else 0."""
    if inside.values.dtype == torch.bool:
        return torch.where(inside.values, gradient if factor == 1.0 else gradient * factor, 0.0)
    compiled = library()
    assert compiled is not None, "it made the mask"
    gradient = _laid_out(gradient, inside.strides)
    out = torch.empty_like(gradient)
    compiled.pass_inside(_at(gradient), _at(inside.values), _at(out), out.numel(), factor)
    return out


def convert(
    v: Tensor, slope: Tensor, offset: Tensor, lo: int, hi: int, shift: Shift | None, noise: Noise | None
) -> tuple[Tensor, Tensor]:
    """A converter and what follows it: `a = clip(floor(v), lo, hi)`, `y = offset + a * slope`, then the shift.

    Args:
        v: (N, C, H, W) in converter steps, disturbed first if there is noise.
        slope, offset: (C,).
        lo, hi: within -32..31.

    Returns:
        y, and each conversion's code, from which `convert_backward` takes the gradients.
    """
    compiled = library()
    channels = v.shape[1]
    if compiled is None or v.dtype != torch.float32 or v.device.type != "cpu" or channels > MOST_CHANNELS:
        return _convert(v, slope, offset, lo, hi, shift, noise)
    v = v.contiguous(memory_format=torch.channels_last)
    y, code = torch.empty_like(v), torch.empty_like(v, dtype=torch.uint8)
    after = (shift.divisor, shift.lo, shift.hi) if shift else (0.0, 0, 0)
    disturbed = [None, 0, 0, 0.0, None, None]
    held = [slope.contiguous(), offset.contiguous()]
    if noise is not None:
        held += [noise.gain.contiguous(), noise.error.contiguous()]
        disturbed = [_at(noise.pool), noise.size, noise.first, noise.sigma, _at(held[2]), _at(held[3])]
    sizes = (v.numel() // channels, channels)
    if compiled.convert(_at(v), _at(y), _at(code), *sizes, _at(held[0]), _at(held[1]), lo, hi, *after, *disturbed):
        raise MemoryError(f"no memory for the values of {channels} channels")
    return y, code


def _convert(
    v: Tensor, slope: Tensor, offset: Tensor, lo: int, hi: int, shift: Shift | None, noise: Noise | None
) -> tuple[Tensor, Tensor]:
    v = v.contiguous(memory_format=torch.channels_last)  # noise is laid over what is in memory
    rounded = (v if noise is None else noise.disturb(v)).floor()
    a = rounded.clamp(lo, hi)
    code = (a + OFFSET).to(torch.uint8) + CONVERTED * (a == rounded).to(torch.uint8)
    y = a.mul_(slope.reshape(-1, 1, 1)).add_(offset.reshape(-1, 1, 1))
    if shift is not None:
        shifted = (y / shift.divisor).floor()
        y = shifted.clamp(shift.lo, shift.hi)
        code += REQUANTISED * (y == shifted).to(torch.uint8)
    return y, code


def convert_backward(
    gradient: Tensor, code: Tensor, slope: Tensor, shift: Shift | None, noise: Noise | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `convert`'s v (N, C, H, W), slope (C,) and offset (C,), the sums taken in double precision."""
    passing = slope if noise is None else slope * noise.gain
    divisor = shift.divisor if shift else 0.0
    compiled = library()
    channels = code.shape[1]
    is_fit = gradient.dtype == torch.float32 and gradient.device.type == "cpu" and channels <= MOST_CHANNELS
    if compiled is None or not is_fit:
        passed = gradient
        if shift is not None:
            passed = torch.where((code & REQUANTISED) != 0, gradient / shift.divisor, 0.0)
        a = (code & RESULT).to(gradient.dtype) - OFFSET
        slopes, offsets = (x.sum((0, 2, 3), dtype=torch.float64).to(slope.dtype) for x in (passed * a, passed))
        return torch.where((code & CONVERTED) != 0, passed * passing.reshape(-1, 1, 1), 0.0), slopes, offsets
    gradient = _laid_out(gradient, code.stride())
    out, passing = torch.empty_like(gradient), passing.contiguous()
    sums = torch.empty((2, channels), dtype=torch.float64)
    sizes = (code.numel() // channels, channels)
    arrays = (_at(gradient), _at(code), _at(out))
    ends = (_at(sums[0]), _at(sums[1]), torch.get_num_threads())
    if compiled.convert_backward(*arrays, *sizes, _at(passing), divisor, *ends):
        raise MemoryError(f"no memory for the sums of {channels} channels")
    return out, sums[0].to(slope.dtype), sums[1].to(slope.dtype)


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor is all of a piece of the CPU's memory, of single precision."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _is_dense(x: Tensor) -> bool:
    """Whether a tensor's strides are a permutation of contiguous ones."""
    expected = 1
    for size, stride in sorted(zip(x.shape, x.stride(), strict=True), key=lambda pair: pair[1]):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _laid_out(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """With its values in that order in memory."""
    return x if x.stride() == strides else torch.empty_strided(x.shape, strides, dtype=x.dtype).copy_(x)


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
