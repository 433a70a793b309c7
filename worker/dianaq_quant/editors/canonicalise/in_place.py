"""Calls that write into their input become calls that leave it alone."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.canonicalise.traced_call import Call
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import layer_of


class InPlace(Editor):
    """`write_(x); f(x) -> y = write(x); f(y)`: what is read after the write is what was written.

    Which calls write, and which values lie in one memory, was recorded while the network ran. Reads through another
    view of that memory (`v = x.flatten(1); x.relu_(); f(v)`) are refused.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if node.meta.get("writes") and _later_readers(network, node):
                yield Point((node,), "what is read after it is what it wrote")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        for source, reader in _later_readers(network, node):
            reader.replace_input_with(source, node)


def _later_readers(network: fx.GraphModule, node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """Values that the node overwrites, each with a node that reads it afterwards."""
    order = {n: i for i, n in enumerate(network.graph.nodes)}
    written = node.meta["memory"]
    found = []
    for source in network.graph.nodes:
        memory = source.meta.get("memory")
        if order[source] >= order[node] or memory is None or memory.storage != written.storage:
            continue
        readers = [user for user in source.users if order[user] > order[node]]
        if readers and memory != written:
            raise Call(network, node).refuse(
                f"it writes in place into what {layer_of(readers[0])!r} reads later by another view; "
                "use the operation that does not write in place"
            )
        found += [(source, reader) for reader in readers]
    return found
