"""Quantisers where the chip stores a tensor and no activation function stands."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.ranges import QRange
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import insert_after, module_of
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear, FakeQuantiser
from dianaq_quant.modules.structure import Add, GlobalAvgPool2d

_STORED = FakeConv2d | FakeLinear | nn.BatchNorm1d | nn.BatchNorm2d | Add | GlobalAvgPool2d


class Interpose(Editor):
    """`x -> Q(x)` after the input, and after every layer, addition and average pool that has no quantiser yet.

    A BatchNorm belongs to its layer, so that only the pair is quantised. A pool keeps its input's scale and
    range: the hardware requantises nothing there.
    """

    def __init__(self, qrange: QRange) -> None:
        self.qrange = qrange

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if node.op == "placeholder":
                yield Point((node,), "input quantiser")
            elif isinstance(module_of(network, node), _STORED) and not _continues(network, node):
                yield Point((node,), f"signed activation in [{self.qrange.lo}, {self.qrange.hi}]")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        if isinstance(module_of(network, node), GlobalAvgPool2d):
            source = source_quantiser(network, node)
            quantiser = FakeQuantiser(source.qrange, source.scale, source.ceiling)
        else:
            quantiser = FakeQuantiser(self.qrange)
        insert_after(network, node, quantiser, f"{node.name}_quantiser")


def _continues(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node's users finish what it begins: its BatchNorm or its activation."""
    return any(
        isinstance(module_of(network, user), FakeQuantiser | nn.BatchNorm1d | nn.BatchNorm2d) for user in node.users
    )
