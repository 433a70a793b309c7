"""What moves, cuts and pads values, and computes none.

A file is written for one sample; here every tensor has the batch as its first dimension, which none of these may touch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from dianaq.executor.call import Call, Value


def _reshape(shape: Callable[[Call, tuple[int, ...]], Sequence[int]]) -> Callable[[Call], Value]:
    """An operator that changes a tensor's shape alone: `shape` gives that of one sample's result from its own."""

    def run(call: Call) -> Value:
        value = call.value()
        x = value.integers
        target = tuple(shape(call, (1, *x.shape[1:])))
        if not target or target[0] != 1 or math.prod(target) != math.prod(x.shape[1:]):
            raise call.refuse(
                f"makes {list(target)} of {[1, *x.shape[1:]]}; accepted are as many values in another shape (1, ...)"
            )
        return Value(x.reshape(len(x), *target[1:]), value.divisor, value.divided_by)

    return run


def _flattened(call: Call, shape: tuple[int, ...]) -> Sequence[int]:
    axis = call.attribute("axis", 1) % (len(shape) + 1)
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def _reshaped(call: Call, shape: tuple[int, ...]) -> Sequence[int]:
    call.only(allowzero=0)
    target = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(call.numbers(1, "shape"))]
    rest = math.prod(n for n in target if n != -1)
    return [math.prod(shape) // max(1, rest) if n == -1 else n for n in target]


def _squeezed(call: Call, shape: tuple[int, ...]) -> Sequence[int]:
    axes = {axis % len(shape) for axis in call.numbers(1, "axes")}
    return [n for i, n in enumerate(shape) if i not in axes or n != 1]


def _unsqueezed(call: Call, shape: tuple[int, ...]) -> Sequence[int]:
    given = call.numbers(1, "axes")
    axes = {axis % (len(shape) + len(given)) for axis in given}
    rest = iter(shape)
    return [1 if i in axes else next(rest) for i in range(len(shape) + len(axes))]


def cut(call: Call) -> Value:
    """`Slice` with steps from 1; the batch stays whole."""
    value = call.value()
    x = value.integers
    starts, ends = call.numbers(1, "starts"), call.numbers(2, "ends")
    axes, steps = call.numbers(3, "axes", range(len(starts))), call.numbers(4, "steps", [1] * len(starts))
    parts = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise call.refuse(f"has the step {step}; accepted are steps from 1")
        if axis % x.ndim == 0:
            if start != 0 or end < 1 or step != 1:
                raise call.refuse("cuts the batch; accepted are the dimensions behind it")
            continue
        parts[axis % x.ndim] = slice(start, end, step)
    return Value(x[tuple(parts)], value.divisor, value.divided_by)


def pad(call: Call) -> Value:
    """`Pad` with a constant around a tensor; a negative count cuts."""
    call.only(mode=b"constant")
    x = call.tensor()
    pads = call.numbers(1, "pads")
    fill = call.scalar(2) if call.node.input(2) else int(call.attribute("value", 0))
    before, after = pads[: x.ndim], pads[x.ndim :]
    if len(pads) != 2 * x.ndim or before[0] or after[0]:
        raise call.refuse(f"has pads = {pads}; accepted are two counts per dimension, 0 for the batch")
    kept = tuple(slice(max(0, -a), n - max(0, -b)) for a, b, n in zip(before, after, x.shape, strict=True))
    grown = [(max(0, a), max(0, b)) for a, b in zip(before, after, strict=True)]
    return Value(np.pad(x[kept], grown, constant_values=fill))


flatten = _reshape(_flattened)
reshape = _reshape(_reshaped)
squeeze = _reshape(_squeezed)
unsqueeze = _reshape(_unsqueezed)
