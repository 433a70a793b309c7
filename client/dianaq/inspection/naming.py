"""The name of every node of a graph, the same wherever one is named: reports, messages, `mapping.layers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def node_names(graph: onnx.GraphProto) -> list[str]:
    """A unique name for each node of `graph`, in the graph's order.

    A node keeps its own name. One without a name is called by its operator and its index in the graph
    (`Conv_3`), and one whose name was given before gets its index appended (`fc`, then `fc_7`).
    """
    own = {node.name for node in graph.node if node.name}
    taken: set[str] = set()
    names = []
    for index, node in enumerate(graph.node):
        name = node.name
        if not name or name in taken:
            name = f"{name or node.op_type}_{index}"
            while name in own or name in taken:
                name += "_"
        taken.add(name)
        names.append(name)
    return names
