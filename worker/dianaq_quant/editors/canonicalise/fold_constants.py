"""Tensors computed from constants become constants."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import free_name


class FoldConstants(Editor):
    """`f(self.mean)[:, None] -> c`, with the values recorded while the network ran.

    That they do not depend on the input shows in the graph; and two runs must have given the same, which what is drawn
    at random does not.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        dependent: set[fx.Node] = set()
        for node in network.graph.nodes:
            if node.op == "placeholder" or not dependent.isdisjoint(node.all_input_nodes):
                dependent.add(node)
            elif node.op in ("call_function", "call_method") and "tensor" in node.meta and not node.meta["writes"]:
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        target = free_name(network, f"{node.name}_constant")
        network.register_buffer(target, node.meta["tensor"].detach().clone())
        with network.graph.inserting_before(node):
            constant = network.graph.get_attr(target)
        node.replace_all_uses_with(constant)
        network.graph.erase_node(node)
