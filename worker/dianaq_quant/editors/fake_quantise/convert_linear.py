"""Linear layers get a weight quantiser."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.ranges import QRange
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.fake import fake_linear_op
from dianaq_quant.modules.structure import Conv2d


class ConvertLinear(Editor):
    """`W x + b -> Q(W) x + b`, one scale for the whole weight (the digital core has no other)."""

    def __init__(self, qrange: QRange) -> None:
        self.qrange = qrange

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, Conv2d, nn.Linear):
            yield Point((node,), f"weights in [{self.qrange.lo}, {self.qrange.hi}]")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        layer = module_of(network, node)
        assert isinstance(layer, Conv2d | nn.Linear)
        set_module(network, node, fake_linear_op(layer, self.qrange))
