"""The operators that exported networks consist of, each in integers, for a batch at a time."""

from __future__ import annotations

from collections.abc import Callable

from dianaq.executor import elementwise, layers, shapes
from dianaq.executor.call import Call, Value

OPERATORS: dict[str, Callable[[Call], Value]] = {
    "Conv": layers.convolution,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "Add": elementwise.add,
    "Mul": elementwise.multiply,
    "Div": elementwise.divide,
    "Floor": elementwise.floor,
    "Clip": elementwise.clip,
    "Max": elementwise.extremum,
    "Min": elementwise.extremum,
    "MaxPool": layers.pool_max,
    "AveragePool": layers.average_pool,
    "GlobalAveragePool": layers.global_average_pool,
    "ReduceSum": layers.reduce_sum,
    "Flatten": shapes.flatten,
    "Reshape": shapes.reshape,
    "Squeeze": shapes.squeeze,
    "Unsqueeze": shapes.unsqueeze,
    "Identity": Call.value,
    "Slice": shapes.cut,
    "Pad": shapes.pad,
    "Cast": elementwise.cast,
}
"""Every operator that the two dialects have, and those that cut a padded output."""

SHAPE_OPERATORS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Slice"})
"""Operators that move values and compute none."""
