"""Paddings in a row become one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.lower.disjoint import disjoint
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.structure import Pad2d, Pads


class MergePads(Editor):
    """`pad(pad(x, p), q) -> pad(x, p + q)`. The inner one stays for what else reads it."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        yield from disjoint(self._candidates(network))

    def _candidates(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, Pad2d):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if isinstance(module_of(network, source), Pad2d):
                yield Point((node, source))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, source = point.nodes
        outer, inner = module_of(network, node), module_of(network, source)
        assert isinstance(outer, Pad2d)
        assert isinstance(inner, Pad2d)
        channels = (inner.channels[0] + outer.channels[0], inner.channels[1] + outer.channels[1])
        set_module(network, node, Pad2d(summed(inner.pads, outer.pads), channels))
        node.args = source.args


def summed(a: Pads, b: Pads) -> Pads:
    """Two paddings of a map, added side by side."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]
