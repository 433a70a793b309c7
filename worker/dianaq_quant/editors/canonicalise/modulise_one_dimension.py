"""Layers of 1-d networks, (N, C, L), become those of maps (N, C, 1, L)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise import modulise_pools as pools
from dianaq_quant.editors.canonicalise.modulise_layers import convolution, convolution_module
from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.layout import of_line

NEUTRAL = {"padding": 0}
"""What stands for the height where a number is given for the length; 1 for sizes, strides and dilations."""


class LineCall(Call):
    """A call whose input (C, L) is looked at as a map of height 1, and its numbers as those of such a map."""

    def map_shape(self, value: object) -> tuple[int, int]:
        shape = self.shape(value)
        if len(shape) != 2:
            raise self.refuse(f"its input must be a line (C, L) per sample, its shape is {shape}")
        return 1, shape[1]

    def pair(self, value: object, name: str) -> tuple[int, int]:
        if isinstance(value, tuple | list) and len(value) == 1:
            (value,) = value
        if isinstance(value, int):
            return NEUTRAL.get(name, 1), value
        return super().pair(value, name)


def _on_maps(reader: Reader) -> Reader:
    """A reader of maps for lines."""

    def read(call: Call, input: fx.Node, *arguments: Any, **options: Any) -> Chain:
        line = LineCall(call.network, call.node)
        line.map_shape(input)
        chain = reader(line, input, *arguments, **options)
        after = tuple(call.node.meta["shape"])
        modules = of_line(call.shape(input), chain.modules, after) if chain.modules else ()
        return Chain(chain.sources, modules, chain.note)

    return read


def _average_pool_module(call: Call, input: fx.Node) -> Chain:
    m = call.module
    return pools.average_pool(call, input, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad)


def _of_length(output_size: Any) -> tuple[int, Any]:
    """Size of an adaptive pool's output, of height 1."""
    return 1, output_size[0] if isinstance(output_size, tuple | list) else output_size


def _adaptive_average_pool(call: Call, input: fx.Node, output_size: Any) -> Chain:
    return pools.adaptive_average_pool(call, input, _of_length(output_size))


def _adaptive_max_pool(call: Call, input: fx.Node, output_size: Any, return_indices: bool = False) -> Chain:
    return pools.adaptive_max_pool(call, input, _of_length(output_size), return_indices)


def _adaptive_average_pool_module(call: Call, input: fx.Node) -> Chain:
    return _adaptive_average_pool(call, input, call.module.output_size)


def _adaptive_max_pool_module(call: Call, input: fx.Node) -> Chain:
    return _adaptive_max_pool(call, input, call.module.output_size, call.module.return_indices)


READERS: dict[Any, Reader] = {
    F.conv1d: convolution,
    nn.Conv1d: convolution_module,
    F.max_pool1d: pools.max_pool,
    torch.max_pool1d: pools.max_pool,
    nn.MaxPool1d: pools.max_pool_module,
    F.avg_pool1d: pools.average_pool,
    nn.AvgPool1d: _average_pool_module,
    F.adaptive_avg_pool1d: _adaptive_average_pool,
    nn.AdaptiveAvgPool1d: _adaptive_average_pool_module,
    F.adaptive_max_pool1d: _adaptive_max_pool,
    nn.AdaptiveMaxPool1d: _adaptive_max_pool_module,
}
"""Readers of maps, by what they read of lines."""


class ModuliseOneDimension(CallEditor):
    """`conv1d(x) -> R^-1(Conv2d()(R(x)))`, where R makes (C, 1, L) of (C, L); pools alike."""

    readers: ClassVar[Mapping[Any, Reader]] = {key: _on_maps(reader) for key, reader in READERS.items()}
