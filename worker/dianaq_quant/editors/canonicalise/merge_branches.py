"""Branches that begin with the same activation or flatten share it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls
from dianaq_quant.modules.structure import Ceiling, Flatten


class MergeBranches(Editor):
    """`f(x), f(x) -> f(x)` for activations of one kind, and flattens: one tensor is stored, not two.

    DORY leaves flattens out, and takes only those that directly follow what they read, so that two of one tensor would
    be refused when the files are checked.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        same: dict[tuple[fx.Node, type[nn.Module], float], list[fx.Node]] = {}
        for node, module in calls(network, nn.ReLU, Ceiling, Flatten):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            ceiling = float(module.max_val) if isinstance(module, Ceiling) else float("inf")
            same.setdefault((source, type(module), ceiling), []).append(node)
        for nodes in same.values():
            if len(nodes) > 1:
                yield Point(tuple(nodes), f"{len(nodes)} equal branches of one tensor became one")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        first, *others = point.nodes
        for node in others:
            node.replace_all_uses_with(first)
            network.graph.erase_node(node)
