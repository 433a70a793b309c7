"""Numbers of channels become multiples of what the compilers' code needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.deploy.kernels import keeps_row_tiles
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, output_node
from dianaq_quant.modules.adc import RowTiles
from dianaq_quant.modules.integer import (
    IntegerAdd,
    IntegerAnalogConv2d,
    IntegerConv2d,
    IntegerGlobalAvgPool2d,
    IntegerInput,
    IntegerLinear,
    IntegerRelu,
)
from dianaq_quant.modules.pixels import PixelInput
from dianaq_quant.modules.structure import Flatten, MaxPool2d
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT

Weighted = IntegerConv2d | IntegerAnalogConv2d | IntegerLinear


@dataclass(frozen=True)
class Multiples:
    """What numbers of channels have to be multiples of.

    Args:
        maps: channels that a convolution gives.
        features: values that a fully connected layer gives.
        entrance: channels of the network's input.
    """

    maps: int
    features: int
    entrance: int


HTVM_MULTIPLES = Multiples(maps=16, features=4, entrance=1)
"""A convolution's bias is corrupted where C_out is no multiple of 16, and a fully connected layer runs on the CPU where
its inputs or outputs are no multiple of 4 (HTVM)."""

SOC_MULTIPLES = Multiples(maps=16, features=16, entrance=16)
"""C_in and C_out of every layer (DORY for Diana_SoC)."""


@dataclass(eq=False)
class _Channels:
    """Channels of values that must agree, because an operation joins them or passes them on."""

    count: int
    multiple: int = 1
    kept: str = ""
    """Why the count must stay; empty if it need not."""
    joined: _Channels | None = field(default=None, repr=False)

    @property
    def root(self) -> _Channels:
        return self if self.joined is None else self.joined.root

    @property
    def padded(self) -> int:
        root = self.root
        return root.count if root.kept else -(-root.count // root.multiple) * root.multiple

    def require(self, multiple: int) -> None:
        self.root.multiple = math.lcm(self.root.multiple, multiple)

    def keep(self, why: str) -> None:
        self.root.kept = self.root.kept or why

    def join(self, other: _Channels) -> None:
        mine, others = self.root, other.root
        if mine.count != others.count:  # a flattened map and a vector
            for one in (mine, others):
                one.keep("a flattened map and a vector are added")
        elif mine is not others:
            others.joined = mine
            mine.multiple = math.lcm(mine.multiple, others.multiple)
            mine.kept = mine.kept or others.kept


class PadChannels(Editor):
    """`W -> [W 0; 0 0]`, `b -> [b; 0]`: channels of zeros that nobody reads.

    A padded channel of the network's own output holds the least integer of its range, so that it never is the largest
    value. Of an analog layer, `k` and `l` are zero. Where an operation ties channels (additions, depthwise layers),
    they are padded alike; where a number must stay, all that are tied to it stay.
    """

    def __init__(self, multiples: Multiples) -> None:
        self.multiples = multiples
        self._channels: dict[fx.Node, _Channels] = {}
        self._last: fx.Node | None = None

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        self._channels = {}
        for node in network.graph.nodes:
            if node.op in ("placeholder", "call_module"):
                self._channels[node] = self._give(node, module_of(network, node))
        self._last = _giver(network)
        if not _can_hold_least(module_of(network, self._last)):
            self._channels[self._last].keep("padding of the network's output could not be the least integer")
        for node, _ in calls(network, IntegerInput, PixelInput, IntegerConv2d, IntegerAnalogConv2d, IntegerLinear):
            source, channels = node.all_input_nodes[0], self._channels[node].root
            before, after = (_values(source), _values(node)), (self._values(source), self._values(node))
            if before != after:
                yield Point((node,), f"from {before[0]} to {before[1]} channels: now from {after[0]} to {after[1]}")
            elif channels.kept and channels.count % channels.multiple:
                yield Rejection(node, f"gives {channels.count} channels still: {channels.kept}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        module, out = module_of(network, node), self._values(node)
        if isinstance(module, IntegerInput | PixelInput):
            module.padding = out - _values(node)
            return
        assert isinstance(module, Weighted)
        _pad(module, self._values(node.all_input_nodes[0]), out)
        if node is self._last and not isinstance(module, IntegerAnalogConv2d):
            module.bias[_values(node) :] = module.shift.qrange.lo * 2**module.shift.shift

    def _values(self, node: fx.Node) -> int:
        """Channels of a node's value with padding; of a flattened one, all its values."""
        channels = self._channels[node]
        return _values(node) // channels.root.count * channels.padded

    def _give(self, node: fx.Node, module: nn.Module | None) -> _Channels:
        """The channels of a node's value; those that it reads learn what it needs of them."""
        channels = _Channels(_values(node))
        if node.op == "placeholder":
            channels.keep("the network's input is as it is")
        elif isinstance(module, IntegerInput | PixelInput):
            channels.require(self.multiples.entrance)
            if len(node.meta["shape"]) == 1 or self.multiples.entrance == 1:
                channels.keep("the network's input is as it is")
        elif isinstance(module, IntegerLinear):
            channels.require(self.multiples.features)
        elif isinstance(module, IntegerConv2d | IntegerAnalogConv2d):
            channels.require(self.multiples.maps)
            self._tie_conv(module, self._channels[node.all_input_nodes[0]], channels)
        else:
            sources = [self._channels[source] for source in node.all_input_nodes]
            for other in sources[1:]:
                sources[0].join(other)
            return sources[0]
        return channels

    def _tie_conv(self, module: IntegerConv2d | IntegerAnalogConv2d, source: _Channels, channels: _Channels) -> None:
        """What a convolution demands of the channels that it reads and gives."""
        groups, kernel = module.geometry.groups, (module.weight.shape[2], module.weight.shape[3])
        if groups == 1:
            # What the input's channels will be is known in the end only; it is at most this.
            most = math.ceil(source.root.count / self.multiples.maps) * self.multiples.maps
            if most != source.root.count and not keeps_row_tiles(module, kernel, most):
                source.keep("the analog layer that reads them would be spread over its arrays in another way")
        elif groups == source.root.count == channels.count:
            source.join(channels)
        else:
            for tied in (source, channels):
                tied.keep("a grouped convolution reads or gives them")


def _values(node: fx.Node) -> int:
    """Channels of a node's value; of a flattened one, all its values."""
    values: int = node.meta["shape"][0]
    return values


def _pad(module: Weighted, into: int, out: int) -> None:
    """Zeros up to so many input and output channels."""
    weight = module.weight
    depthwise = not isinstance(module, IntegerLinear) and module.geometry.groups > 1
    more_in, more_out = 0 if depthwise else into - weight.shape[1], out - weight.shape[0]
    module.weight = F.pad(weight, (*(0, 0) * (weight.dim() - 2), 0, more_in, 0, more_out))
    if isinstance(module, IntegerAnalogConv2d):
        module.k, module.l = F.pad(module.k, (0, more_out)), F.pad(module.l, (0, more_out))
        module.tiles = RowTiles.of(module.weight.shape[1], (weight.shape[2], weight.shape[3]))
    else:
        module.bias = F.pad(module.bias, (0, more_out))
    if depthwise and not isinstance(module, IntegerLinear):
        module.geometry = replace(module.geometry, groups=out)


def _giver(network: fx.GraphModule) -> fx.Node:
    """What computes the integers that the network gives; pools and reshapes pass them on."""
    node = output_node(network).all_input_nodes[0]
    while isinstance(module_of(network, node), Flatten | MaxPool2d | IntegerGlobalAvgPool2d):
        node = node.all_input_nodes[0]
    return node


def _can_hold_least(module: nn.Module | None) -> bool:
    """Whether padded channels can be given the least integer of their range: 0 they are, and a bias brings them to
    any other as far as 32 bits go."""
    if isinstance(module, IntegerRelu):
        return True
    if not isinstance(module, Weighted | IntegerAdd):
        return False
    lo, shift = module.shift.qrange.lo, module.shift.shift
    has_bias = isinstance(module, IntegerConv2d | IntegerLinear)
    return lo == 0 or (has_bias and lo * 2**shift >= -ACCUMULATOR_LIMIT)
