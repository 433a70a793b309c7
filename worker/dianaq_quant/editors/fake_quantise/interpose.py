"""Quantisers where the chip stores a tensor and no activation function stands."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.schemas.quantisers import Quantisers, QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors.fake_quantise.specs import activation_spec
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import insert_after, module_of
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Add, GlobalAvgPool2d

_STORED = FakeConv2d | FakeLinear | nn.BatchNorm1d | nn.BatchNorm2d | Add | GlobalAvgPool2d


class Interpose(Editor):
    """`x -> Q(x)` after the input, and after every layer, addition and average pool that has no quantiser yet.

    A BatchNorm belongs to its layer, so that only the pair is quantised. A pool keeps its input's scale and
    range: the hardware requantises nothing there. (The converter of an analog layer is part of that layer.)
    """

    def __init__(self, quantisers: Quantisers) -> None:
        self.quantisers = quantisers

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if node.op == "placeholder":
                yield Point((node,), f"input quantiser in {self._range(network, node)}")
            elif isinstance(module_of(network, node), _STORED) and not _continues(network, node):
                yield Point((node,), f"signed activation in {self._range(network, node)}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        if isinstance(module_of(network, node), GlobalAvgPool2d):
            source = source_quantiser(network, node)
            quantiser = FakeQuantiser(source.spec, source.qrange, source.scale, source.ceiling)
        else:
            quantiser = FakeQuantiser(self._spec(network, node), self._range(network, node))
        insert_after(network, node, quantiser, f"{node.name}_quantiser")

    def _spec(self, network: fx.GraphModule, node: fx.Node) -> QuantiserSpec:
        return activation_spec(self.quantisers, network, node)

    def _range(self, network: fx.GraphModule, node: fx.Node) -> QRange:
        """The recipe's range; one without negative integers is taken at its number of levels, with a sign."""
        qrange = self._spec(network, node).range
        return qrange if qrange.is_free or qrange.lo < 0 else QRange(n_levels=qrange.levels, signed=True)


def _continues(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node's users finish what it begins: its BatchNorm or its activation."""
    return any(
        isinstance(module_of(network, user), FakeQuantiser | nn.BatchNorm1d | nn.BatchNorm2d) for user in node.users
    )
