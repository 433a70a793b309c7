"""A saturating activation does not feed an addition directly."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.inspection.fit_names import IDENTITY
from dianaq_quant.editors.canonicalise.diagonal import identity
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, insert_between, layer_of, module_of
from dianaq_quant.modules.structure import Add, Ceiling, Flatten, GlobalAvgPool2d, MaxPool2d


class AnchorCeiling(Editor):
    """`relu6(x) + y -> identity(relu6(x)) + y`, also where poolings or a flatten stand in between.

    The ceiling fixes the scale of what it bounds, while an addition needs both of its inputs on one scale, which
    the other input may not fit. The layer in between converts.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, Add):
            if any(_saturates(network, source) for source in node.all_input_nodes):
                yield Point((node,), "adds what a fixed value bounds: identity layer inserted")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        for source in node.all_input_nodes:
            if _saturates(network, source):
                shape = source.meta["shape"]
                layer = identity(shape[0], spatial=len(shape) == 3)
                insert_between(network, source, node, layer, f"{layer_of(node)}{IDENTITY}").meta["shape"] = shape


def _saturates(network: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(network, node)
    if isinstance(module, MaxPool2d | GlobalAvgPool2d | Flatten):
        source = node.args[0]
        return isinstance(source, fx.Node) and _saturates(network, source)
    return isinstance(module, Ceiling)
