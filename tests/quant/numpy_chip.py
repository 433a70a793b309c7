"""The integer network in plain numpy and int64, written from the chip's formulas: the judge of all executions."""

from __future__ import annotations

import numpy as np

from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.modules.integer import (
    IntegerAdd,
    IntegerAnalogConv2d,
    IntegerConv2d,
    IntegerGlobalAvgPool2d,
    IntegerLinear,
    Shift,
)
from dianaq_quant.modules.structure import Geometry, MaxPool2d

ROWS = 1152
"""Rows of the analog array."""


def shift_clip(accumulator: np.ndarray, shift: int, lo: int, hi: int) -> np.ndarray:
    return np.clip(accumulator >> shift, lo, hi)


def convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, g: Geometry) -> np.ndarray:
    """A convolution as its definition reads, in int64."""
    top, left, bottom, right = g.pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    outputs, per_group, height, width = weight.shape
    rows = (x.shape[2] - g.dilation[0] * (height - 1) - 1) // g.stride[0] + 1
    columns = (x.shape[3] - g.dilation[1] * (width - 1) - 1) // g.stride[1] + 1
    y = np.zeros((len(x), outputs, rows, columns), dtype=np.int64) + bias[:, None, None]
    for o in range(outputs):
        first = o // (outputs // g.groups) * per_group
        for i in range(per_group):
            for r in range(height):
                for c in range(width):
                    patch = x[:, first + i, r * g.dilation[0] :, c * g.dilation[1] :]
                    patch = patch[:, :: g.stride[0], :: g.stride[1]][:, :rows, :columns]
                    y[:, o] += weight[o, i, r, c] * patch
    return y


def tiles(channels: int, kernel: tuple[int, int]) -> list[slice]:
    """The input channels of each row tile: as few tiles as the rows allow, whole channels, evenly."""
    count = -(-channels // (ROWS // (kernel[0] * kernel[1])))
    size = -(-channels // count)
    return [slice(i * size, min(channels, (i + 1) * size)) for i in range(count)]


def conversions(x: np.ndarray, weight: np.ndarray, gain: int, g: Geometry) -> np.ndarray:
    """The sum over row tiles of `clip(floor(acc / g), -32, 31)`."""
    none = np.zeros(len(weight), dtype=np.int64)
    parts = tiles(weight.shape[1], (weight.shape[2], weight.shape[3]))
    sums = [convolution(x[:, part], weight[:, part], none, g) for part in parts]
    return np.sum([np.clip(acc // gain, -32, 31) for acc in sums], axis=0)


def max_pool(x: np.ndarray, pool: MaxPool2d) -> np.ndarray:
    top, left, bottom, right = pool.pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-(10**6))
    windows = np.lib.stride_tricks.sliding_window_view(x, pool.kernel, axis=(2, 3))
    return windows[:, :, :: pool.stride[0], :: pool.stride[1]].max((4, 5))


def _requantise(accumulator: np.ndarray, shift: Shift) -> np.ndarray:
    return shift_clip(accumulator, shift.shift, shift.qrange.lo, shift.qrange.hi)


def _run(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    module, x = layer.module, inputs[0]
    if isinstance(module, IntegerConv2d):
        parameters = (module.weight.numpy().astype(np.int64), module.bias.numpy().astype(np.int64))
        return _requantise(convolution(x, *parameters, module.geometry), module.shift)
    if isinstance(module, IntegerAnalogConv2d):
        a = conversions(x, module.weight.numpy().astype(np.int64), module.gain, module.geometry)
        k, offset = (p.numpy().astype(np.int64)[:, None, None] for p in (module.k, module.l))
        return _requantise(a * k + offset, module.shift)
    if isinstance(module, IntegerLinear):
        weight, bias = module.weight.numpy().astype(np.int64), module.bias.numpy().astype(np.int64)
        return _requantise(x @ weight.T + bias, module.shift)
    if isinstance(module, IntegerAdd):
        return _requantise(inputs[0] + inputs[1], module.shift)
    if isinstance(module, IntegerGlobalAvgPool2d):
        mean = x.sum((2, 3), keepdims=True) // (x.shape[2] * x.shape[3])
        return np.clip(mean, module.qrange.lo, module.qrange.hi)
    if isinstance(module, MaxPool2d):
        return max_pool(x, module)
    return x.reshape(len(x), -1)


def run_numpy(network: IntegerNetwork, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every layer's integers for a batch of real inputs, in int64; `"input"` are those of the quantised input."""
    entrance = network.entrance
    steps = np.floor(x.astype(np.float32) / np.float32(entrance.scale))
    values = {"input": np.clip(steps, entrance.qrange.lo, entrance.qrange.hi).astype(np.int64)}
    for layer in network.layers:
        values[layer.name] = _run(layer, [values[name] for name in layer.inputs])
    return values
