"""Numbers computed from shapes become the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx

from dianaq_quant.graph import Editor, Point, Rejection


class FoldShapes(Editor):
    """`f(x, x.size(3)) -> f(x, 8)`, with the values recorded while the network ran.

    Those that depend on the number of samples stay: only a reshape needs them, and it is replaced by what it does to
    the shape of one sample.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if "value" in node.meta:
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes

        def fold(argument: fx.Node) -> Any:
            return node.meta["value"] if argument is node else argument

        for user in list(node.users):
            user.args = fx.node.map_arg(user.args, fold)
            user.kwargs = fx.node.map_arg(user.kwargs, fold)
        network.graph.erase_node(node)
