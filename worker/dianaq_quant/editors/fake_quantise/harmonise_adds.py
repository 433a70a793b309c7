"""Both inputs of an addition get one scale."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import calls
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Add


class HarmoniseAdds(Editor):
    """`Q(a; s_a) + Q(b; s_b) -> Q(a; s) + Q(b; s)`: the chip adds integers, so their steps must be equal.

    Quantisers share one `Scale`. A tensor that feeds several additions joins their groups, so chains and trees
    of additions end up with one scale where they must. How a shared scale starts and learns is one thing as well:
    the recipe's for the first of them.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, Add):
            first, second = (source_quantiser(network, node, i) for i in (0, 1))
            alike = (first.spec.function, first.spec.init) == (second.spec.function, second.spec.init)
            note = "" if alike else f", started and learned as the first: {first.spec.function}"
            yield Point((node,), f"both inputs share one scale{note}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        first, second = (source_quantiser(network, point.nodes[0], i) for i in (0, 1))
        dropped = second.scale
        for module in network.modules():
            if isinstance(module, FakeQuantiser) and module.scale is dropped:
                module.share(first)
