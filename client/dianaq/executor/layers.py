"""Convolutions, fully connected layers and pooling, as nodes of a file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dianaq.executor.arithmetic import Integers, convolve, dense, max_pool, sum_pool
from dianaq.executor.call import Call, Value


def convolution(call: Call) -> Value:
    """`Conv`: padding explicit, weight and bias constants."""
    weight = call.constant(1)
    x = _map(call)
    if weight.ndim != 4:
        raise call.refuse(f"has weights of shape {weight.shape}; accepted are those of 2-D convolutions")
    call.only(auto_pad=b"NOTSET", kernel_shape=list(weight.shape[2:]))
    groups = call.attribute("group", 1)
    if weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        raise call.refuse(f"has weights of shape {weight.shape} in {groups} groups for {x.shape[1]} channels")
    bias = call.constant(2).ravel() if call.node.input(2) else None
    if bias is not None and len(bias) != len(weight):
        raise call.refuse(f"has a bias of {len(bias)} values for {len(weight)} outputs")
    try:
        sums = convolve(
            x,
            weight,
            bias,
            strides=call.attribute("strides", [1, 1]),
            pads=call.attribute("pads", [0, 0, 0, 0]),
            dilations=call.attribute("dilations", [1, 1]),
            groups=groups,
        )
    except OverflowError as error:
        raise call.overflow(f"up to {error}") from None
    return Value(call.accumulated(sums))


def gemm(call: Call) -> Value:
    """`Gemm`: weights (out, in) with transB = 1, (in, out) with transB = 0."""
    call.only(transA=0, alpha=1, beta=1)
    weight = call.constant(1)
    bias = call.constant(2).ravel() if call.node.input(2) else None
    return _dense(call, weight if call.attribute("transB", 0) else weight.T, bias)


def matmul(call: Call) -> Value:
    """`MatMul` with constant weights (in, out)."""
    return _dense(call, call.constant(1).T, None)


def _dense(call: Call, weight: Integers, bias: Integers | None) -> Value:
    x = call.tensor()
    if x.ndim != 2 or weight.ndim != 2 or weight.shape[1] != x.shape[1]:
        raise call.refuse(f"multiplies {x.shape[1:]} values by weights of shape {weight.shape[::-1]}")
    if bias is not None and bias.size not in (1, len(weight)):
        raise call.refuse(f"has a bias of {bias.size} values for {len(weight)} outputs")
    try:
        return Value(call.accumulated(dense(x, weight, bias)))
    except OverflowError as error:
        raise call.overflow(f"up to {error}") from None


def pool_max(call: Call) -> Value:
    """`MaxPool`; its padding is never the largest."""
    call.only(auto_pad=b"NOTSET", ceil_mode=0, dilations=[1, 1], storage_order=0)
    return Value(max_pool(_map(call), **_window(call)))


def average_pool(call: Call) -> Value:
    """The sum of every window, over its size; the `Floor` behind it divides."""
    call.only(auto_pad=b"NOTSET", ceil_mode=0, dilations=[1, 1])
    window = _window(call)
    if any(window["pads"]) and not call.attribute("count_include_pad", 0):
        raise call.refuse("has padding that does not count; accepted is count_include_pad = 1, or no padding")
    return _mean(call, sum_pool(_map(call), **window), math.prod(window["kernel"]))


def global_average_pool(call: Call) -> Value:
    """The sum of a whole map, over its size."""
    x = _map(call)
    return _mean(call, x.sum((2, 3), keepdims=True, dtype=np.int64), math.prod(x.shape[2:]))


def _mean(call: Call, sums: Integers, count: int) -> Value:
    return Value(call.accumulated(sums), count, call.node.name)


def reduce_sum(call: Call) -> Value:
    """`ReduceSum`, with which the file for HTVM adds up the row tiles of a tall analog layer."""
    x = call.tensor()
    axes = tuple(axis % x.ndim for axis in call.numbers(1, "axes"))
    if 0 in axes:
        raise call.refuse("sums over the batch; accepted are the dimensions behind it")
    return Value(call.accumulated(x.sum(axes, keepdims=bool(call.attribute("keepdims", 1)), dtype=np.int64)))


def _map(call: Call) -> Integers:
    x = call.tensor()
    if x.ndim != 4:
        raise call.refuse(f"reads a tensor of shape {list(x.shape[1:])}; accepted are maps (C, H, W)")
    return x


def _window(call: Call) -> dict[str, Any]:
    kernel = call.attribute("kernel_shape", None)
    if kernel is None or len(kernel) != 2:
        raise call.refuse(f"has kernel_shape = {kernel}; accepted are two dimensions")
    return {
        "kernel": kernel,
        "strides": call.attribute("strides", [1, 1]),
        "pads": call.attribute("pads", [0, 0, 0, 0]),
    }
