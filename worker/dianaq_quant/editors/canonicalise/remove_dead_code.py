"""What nobody reads disappears."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.graph import Editor, Point, Rejection


class RemoveDeadCode(Editor):
    """`f(x); y = g(x) -> y = g(x)`, assertions included: they held when the network ran.

    After `InPlace` a write is read where it counts, so that one without a reader may go as well.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if not node.users and node.op not in ("placeholder", "output"):
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        network.graph.erase_node(node)  # what only it read goes with the base's sweep
