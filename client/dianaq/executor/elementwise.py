"""What acts on single values: sums, factors, shifts, bounds, types."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dianaq.executor.arithmetic import INT32, fits, largest
from dianaq.executor.call import MAX_SHIFT, Call, Value

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
_INTEGERS = {
    onnx.TensorProto.INT8: (-(2**7), 2**7 - 1),
    onnx.TensorProto.UINT8: (0, 2**8 - 1),
    onnx.TensorProto.INT16: (-(2**15), 2**15 - 1),
    onnx.TensorProto.INT32: (-(2**31), 2**31 - 1),
    onnx.TensorProto.INT64: (-(2**63), 2**63 - 1),
}


def add(call: Call) -> Value:
    """`Add` of two tensors, or of a constant that broadcasts."""
    a, b = call.operand(0), call.operand(1)
    if fits(int(a.min()) + int(b.min()), int(a.max()) + int(b.max())):
        return Value(a + b)
    return Value(call.accumulated(a.astype(np.int64) + b))


def multiply(call: Call) -> Value:
    """`Mul`, like `Add`."""
    a, b = call.operand(0), call.operand(1)
    bound = largest(a) * largest(b)
    if fits(-bound, bound):
        return Value(a * b)
    return Value(call.accumulated(a.astype(np.int64) * b))


def divide(call: Call) -> Value:
    """`Div(2^n)`: nothing is divided before the `Floor` behind it shifts."""
    x = call.tensor()
    divisor = call.scalar(1)
    if divisor < 1 or divisor & (divisor - 1) or divisor > 2**MAX_SHIFT:
        raise call.refuse(f"divides by {divisor}; accepted are powers of two from 1 to 2^{MAX_SHIFT}")
    return Value(x, divisor, call.node.name)


def floor(call: Call) -> Value:
    """An arithmetic right shift behind a `Div`, a division that rounds down behind a mean."""
    value = call.value()
    if value.divisor == 1:
        return Value(value.integers)
    if value.divisor & (value.divisor - 1):
        return Value(value.integers // value.divisor)
    return Value(value.integers >> (value.divisor.bit_length() - 1))


def _bounded(call: Call, lo: int | None, hi: int | None) -> Value:
    x = call.tensor()
    lo, hi = INT32[0] if lo is None else lo, INT32[1] if hi is None else hi
    return Value(np.minimum(np.maximum(x, _int32(lo)), _int32(hi)))


def _int32(bound: int) -> np.int32:
    """A bound of int32 values; what lies beyond them bounds nothing more than the last of them does."""
    return np.int32(min(max(bound, INT32[0]), INT32[1]))


def clip(call: Call) -> Value:
    """`Clip`, its bounds attributes or inputs."""
    bounds: list[int | None] = []
    for index, name in ((1, "min"), (2, "max")):
        if call.node.input(index):
            bounds.append(call.scalar(index))
        else:
            found = call.attribute(name, None)
            if found is not None and (not math.isfinite(found) or found != math.floor(found)):
                raise call.refuse(f"has {name} = {found:g}; accepted are integers")
            bounds.append(None if found is None else int(found))
    return _bounded(call, *bounds)


def extremum(call: Call) -> Value:
    """`Max` or `Min` with one constant."""
    if len(call.node.inputs) != 2 or call.is_constant(0) == call.is_constant(1):
        raise call.refuse("needs one computed tensor and one constant")
    index = 1 if call.is_constant(1) else 0
    bound = call.scalar(index)
    x = call.tensor(1 - index)
    of_both = np.maximum if call.node.operator == "Max" else np.minimum
    return Value(of_both(x, _int32(bound)))


def cast(call: Call) -> Value:
    """Another type for the same integers, which must hold them."""
    to = call.attribute("to", onnx.TensorProto.FLOAT)
    if to in _FLOATS:
        return call.value()
    x = call.tensor()
    if to not in _INTEGERS:
        raise call.refuse(f"casts to {onnx.TensorProto.DataType.Name(to)}; accepted are floats and int8 to int64")
    lo, hi = _INTEGERS[to]
    if int(x.min()) < lo or int(x.max()) > hi:
        raise call.refuse(f"casts [{x.min()}, {x.max()}] to a type of [{lo}, {hi}], where it would wrap")
    return Value(x)
