"""Integer arithmetic of the chip's operations in numpy: int32 wherever no sum can leave it, int64 otherwise.

Nothing here is a floating-point number. Results of int64 are the true sums: who calls decides whether they may be
beyond 32 bits. Arrays are (N, C, H, W), or (N, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Integers = NDArray[np.signedinteger[Any]]

INT32 = (-(2**31), 2**31 - 1)
"""What the chip's accumulators hold."""

MAX_COLUMN_VALUES = 2**22
"""Of the patches that a convolution unfolds at a time: 16 MiB of int32, whatever the batch."""


def largest(x: Integers) -> int:
    """The largest magnitude, as a Python integer: that of -2^31 has no int32."""
    return max(-int(x.min()), int(x.max())) if x.size else 0


def fits(lo: int, hi: int) -> bool:
    """Whether int32 holds a range of integers."""
    return INT32[0] <= lo and hi <= INT32[1]


def _type_of_sums(x: Integers, rows: Integers, bias: Integers | None) -> type[np.signedinteger[Any]]:
    """The integers in which `rows . x + bias` is exact, in any order of summation. `rows` is (outputs, terms).

    Raises:
        OverflowError: not even int64 is known to hold the sums.
    """
    # Sums of magnitudes of int32 weights stay below 2^63 for any number of terms that memory holds.
    weights = int(np.abs(rows.astype(np.int64)).sum(1).max()) if rows.size else 0
    bound = largest(x) * weights + (0 if bias is None else largest(bias))
    if bound > np.iinfo(np.int64).max:
        raise OverflowError(bound)
    return np.int32 if bound <= INT32[1] else np.int64


def dense(x: Integers, weight: Integers, bias: Integers | None) -> Integers:
    """`x . weight^T + bias` for x (N, inputs) and weight (outputs, inputs).

    Raises:
        OverflowError: see `_type_of_sums`.
    """
    kind = _type_of_sums(x, weight, bias)
    # einsum, because numpy multiplies integer matrices several times slower: its `matmul` has no vector code for them.
    sums: Integers = np.einsum("nk,ok->no", x.astype(kind), weight.astype(kind))
    return sums if bias is None else sums + bias.astype(kind)


def convolve(
    x: Integers,
    weight: Integers,
    bias: Integers | None,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Integers:
    """A convolution, weight (outputs, inputs per group, kh, kw), zero padding (top, left, bottom, right).

    Raises:
        OverflowError: see `_type_of_sums`.
    """
    outputs, inputs, *kernel = weight.shape
    rows = weight.reshape(outputs, -1)
    kind = _type_of_sums(x, rows, bias)
    grouped = rows.reshape(groups, outputs // groups, -1).astype(kind)
    windows = _windows(_padded(x.astype(kind), pads, 0), kernel, strides, dilations)
    height, width = windows.shape[2:4]
    terms = inputs * kernel[0] * kernel[1]
    sums = np.empty((len(x), groups, outputs // groups, height * width), kind)
    step = max(1, MAX_COLUMN_VALUES // max(1, groups * terms * height * width))
    for start in range(0, len(x), step):
        part = windows[start : start + step].transpose(0, 1, 4, 5, 2, 3)
        columns = part.reshape(len(part), groups, terms, height * width)
        np.einsum("gok,ngkp->ngop", grouped, columns, out=sums[start : start + step])
    if bias is not None:
        sums += bias.astype(kind).reshape(1, groups, -1, 1)
    return sums.reshape(len(x), outputs, height, width)


def max_pool(x: Integers, *, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> Integers:
    """The largest value of every window; padding never is."""
    padded = _padded(x, pads, int(np.iinfo(x.dtype).min))
    pooled: Integers = _windows(padded, kernel, strides, (1, 1)).max((4, 5))
    return pooled


def sum_pool(x: Integers, *, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> Integers:
    """The sum of every window in int64; padding counts as 0."""
    windows = _windows(_padded(x, pads, 0), kernel, strides, (1, 1))
    pooled: Integers = windows.sum((4, 5), dtype=np.int64)
    return pooled


def _padded(x: Integers, pads: Sequence[int], value: int) -> Integers:
    top, left, bottom, right = pads
    if not any(pads):
        return x
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _windows(x: Integers, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Integers:
    """(N, C, rows, columns, kh, kw), without a copy."""
    extent = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    windows: Integers = sliding_window_view(x, extent, axis=(2, 3))
    return windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
