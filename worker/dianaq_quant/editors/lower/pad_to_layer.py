"""Padding that no reader takes in becomes a layer of its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from dianaq_quant.editors.lower.selection import selection
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, only_user, set_module
from dianaq_quant.modules.structure import AvgPool2d, Conv2d, Pad2d


class PadToLayer(Editor):
    """`pad(x, p) -> conv(x; q)`, a convolution that moves each value to its place and pads with zeros.

    Its kernel is as large as the padding of both sides and one, its padding within it. Channels of zeros are outputs
    without weights, also those of an average pool just before: `pad(mean of k x k) -> conv` with weights `1 / k^2`
    on the diagonal.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, Pad2d):
            if len(node.meta["shape"]) != 3:
                yield Rejection(node, "pads no map")
            elif (pool := _average_before(network, node)) is not None:
                yield Point((node, pool), "became one convolution with the average pool before it")
            else:
                yield Point((node,), "nothing after it can take it in: became a convolution that moves values")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, *averages = point.nodes
        pad, source = module_of(network, node), node.args[0]
        assert isinstance(pad, Pad2d)
        assert isinstance(source, fx.Node)
        (before, after), (top, left, bottom, right) = pad.channels, pad.pads
        channels = source.meta["shape"][0]
        for pool in averages:
            conv = _averaging(module_of(network, pool), channels, before, after)
            bypass(network, pool)
        if not averages:
            # Output i reads input i + tap - pads; both ends are of one padding where tap = bottom, pads = top + bottom.
            vertical, horizontal = top + bottom, left + right
            conv = selection(
                channels,
                before=before,
                after=after,
                kernel=(vertical + 1, horizontal + 1),
                tap=(bottom, right),
                pads=(vertical, horizontal, vertical, horizontal),
            )
        node.meta["inserted"] = True
        set_module(network, node, conv)


def _average_before(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The average pool of which a padding of channels alone is the only reader."""
    pad, source = module_of(network, node), node.args[0]
    assert isinstance(pad, Pad2d)
    assert isinstance(source, fx.Node)
    pools = isinstance(module_of(network, source), AvgPool2d) and only_user(source) is node
    return source if pools and not any(pad.pads) else None


def _averaging(pool: object, channels: int, before: int, after: int) -> Conv2d:
    assert isinstance(pool, AvgPool2d)
    conv = Conv2d(channels, before + channels + after, pool.kernel, pool.stride, bias=False, pads=pool.pads)
    with torch.no_grad():
        conv.weight.zero_()
        for channel in range(channels):
            conv.weight[before + channel, channel] = 1.0 / (pool.kernel[0] * pool.kernel[1])
    return conv
