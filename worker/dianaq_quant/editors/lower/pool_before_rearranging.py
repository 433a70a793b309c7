"""A mean over the whole map does not ask in which order its places are."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.inspection.arrangement import source_axis, unchanged
from dianaq_quant.editors.lower.sink_rearrangements import common, sink
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls
from dianaq_quant.modules.structure import GlobalAvgPool2d


class PoolBeforeRearranging(Editor):
    """`mean(R(x)) -> mean(x)`, where R leaves the channels of a map what they are."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, GlobalAvgPool2d):
            found = common(network, node)
            if found is None:
                continue
            (source,), made = found
            shape = source.meta["shape"]
            same = shape[0] == made.shape[0] and (shape[0] == 1 or source_axis(shape, made, 0) == 0)
            if len(shape) == 3 and same:
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        found = common(network, node)
        assert found is not None
        sink(network, node, found[0], unchanged(node.meta["shape"]))
