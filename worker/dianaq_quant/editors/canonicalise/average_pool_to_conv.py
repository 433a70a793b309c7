"""Average pools that the chip's compilers do not take become depthwise convolutions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, only_user, set_module
from dianaq_quant.modules.structure import AvgPool2d, Ceiling, Conv2d, Flatten, GlobalAvgPool2d, MaxPool2d


class AveragePoolToConv(Editor):
    """`mean over a k x k window -> depthwise convolution with weights 1 / k^2`.

    A global pool stays one where the compilers take it: its input is non-negative (they truncate, so a negative
    mean would be rounded differently) and it is flattened at once (HTVM's only pattern).
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, pool in calls(network, AvgPool2d, GlobalAvgPool2d):
            source, user = node.args[0], only_user(node)
            assert isinstance(source, fx.Node)
            if isinstance(pool, AvgPool2d):
                yield Point((node,), "average pool over a part of the map: became a depthwise convolution")
            elif user is None or not isinstance(module_of(network, user), Flatten):
                yield Point((node,), "global average pool that is not flattened: became a depthwise convolution")
            elif not non_negative(network, source):
                yield Point((node,), "global average pool of signed values: became a depthwise convolution")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        pool, source = module_of(network, node), node.args[0]
        assert isinstance(source, fx.Node)
        channels, *size = source.meta["shape"]
        if isinstance(pool, AvgPool2d):
            kernel, stride, pads = pool.kernel, pool.stride, pool.pads
        else:
            kernel, stride, pads = (size[0], size[1]), (1, 1), (0, 0, 0, 0)
        conv = Conv2d(channels, channels, kernel, stride, groups=channels, bias=False, pads=pads)
        with torch.no_grad():
            conv.weight.fill_(1.0 / (kernel[0] * kernel[1]))
        node.meta["inserted"] = True
        set_module(network, node, conv)


def non_negative(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node's value comes from a ReLU, possibly through operations that only pass its values on.

    Not through another average pool: it becomes a layer, whose corrected bias may take it below zero.
    """
    module = module_of(network, node)
    if isinstance(module, nn.ReLU | Ceiling):
        return True
    source = node.args[0] if node.args else None
    passes = isinstance(module, MaxPool2d | Flatten)
    return passes and isinstance(source, fx.Node) and non_negative(network, source)
