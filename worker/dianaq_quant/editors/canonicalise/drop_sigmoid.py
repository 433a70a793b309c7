"""A sigmoid at the end goes, where the task asks for the largest output alone."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.canonicalise.substitute import activations
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, only_user


def final_sigmoid(network: fx.GraphModule) -> fx.Node | None:
    """The node of a sigmoid that gives the network's output, and nothing else."""
    for node, kind in activations(network):
        user = only_user(node)
        if kind == "sigmoid" and user is not None and user.op == "output":
            return node
    return None


class DropSigmoid(Editor):
    """`return sigmoid(x) -> return x`: it is monotonic, so that the ranking of the classes is the same."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        if (node := final_sigmoid(network)) is not None:
            yield Point((node,), "dropped: the network's output is its input, of the same ranking of classes")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        bypass(network, point.nodes[0])
