"""What moves a window over a map whose height and width are exchanged moves the turned window over the map itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from dianaq.inspection.arrangement import permuted, unchanged
from dianaq_quant.editors.lower.pointwise import WINDOWED
from dianaq_quant.editors.lower.sink_rearrangements import common, sink
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, set_module
from dianaq_quant.modules.structure import AvgPool2d, Conv2d, MaxPool2d, Pads

Pair = tuple[int, int]


class TurnWindows(Editor):
    """`f(transpose(x)) -> transpose(f'(x))`, where the windows of f' are those of f, turned.

    Exporters of 1-d layers put the length into the height here and into the width there.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, *WINDOWED):
            if _turns(network, node):
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        found = common(network, node)
        assert found is not None
        sources, _ = found
        set_module(network, node, turned(network.get_submodule(str(node.target))))
        channels, height, width = node.meta["shape"]
        node.meta["shape"] = shape = (channels, width, height)
        made = permuted(shape, unchanged(shape), (0, 2, 1))
        assert made is not None
        sink(network, node, sources, made)


def _turns(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node reads a map with its height and width exchanged."""
    found = common(network, node)
    if found is None:
        return False
    (source,), made = found
    shape = source.meta["shape"]
    return len(shape) == 3 and made == permuted(shape, unchanged(shape), (0, 2, 1))


def turned(module: nn.Module) -> nn.Module:
    """The module for maps whose height and width are exchanged; the tensors that need no change are the same."""
    if isinstance(module, Conv2d):
        conv = Conv2d(
            module.in_channels,
            module.out_channels,
            _flipped(module.kernel_size),
            _flipped(module.stride),
            dilation=_flipped(module.dilation),
            groups=module.groups,
            bias=module.bias is not None,
            pads=_turned_pads(module.pads),
            device="meta",
        )
        conv.weight, conv.bias = _turned_weight(module.weight), module.bias
        return conv.eval()
    if isinstance(module, MaxPool2d | AvgPool2d):
        return type(module)(_flipped(module.kernel), _flipped(module.stride), _turned_pads(module.pads))
    return copy.copy(module)


def _turned_weight(weight: Tensor) -> nn.Parameter:
    with torch.no_grad():
        return nn.Parameter(weight.transpose(2, 3).contiguous())


def _flipped(values: tuple[int, ...]) -> Pair:
    return values[1], values[0]


def _turned_pads(pads: Pads) -> Pads:
    top, left, bottom, right = pads
    return left, top, right, bottom
