"""Slices in a row become one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.lower.disjoint import disjoint
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.structure import Slice2d


class MergeSlices(Editor):
    """`x[a::b][c::d] -> x[a + c b :: b d]`: exporters write one slice per dimension."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        yield from disjoint(self._candidates(network))

    def _candidates(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, Slice2d):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if isinstance(module_of(network, source), Slice2d):
                yield Point((node, source))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, source = point.nodes
        outer, inner = module_of(network, node), module_of(network, source)
        assert isinstance(outer, Slice2d)
        assert isinstance(inner, Slice2d)
        start = (inner.start[0] + outer.start[0] * inner.step[0], inner.start[1] + outer.start[1] * inner.step[1])
        step = (inner.step[0] * outer.step[0], inner.step[1] * outer.step[1])
        set_module(network, node, Slice2d(start, step, outer.size))
        node.args = source.args
