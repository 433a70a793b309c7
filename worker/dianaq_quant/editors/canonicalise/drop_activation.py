"""An activation that changes nothing goes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.editors.canonicalise.average_pool_to_conv import non_negative
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of
from dianaq_quant.modules.structure import Ceiling


class DropActivation(Editor):
    """`relu(x) -> x` where x is not negative, and `min(x, c) -> x` where x is a saturating activation of at most c."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, nn.ReLU, Ceiling):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            before = module_of(network, source)
            if isinstance(module, Ceiling):
                if isinstance(before, Ceiling) and before.max_val <= module.max_val:
                    yield Point((node,), f"{source.name} is at most {before.max_val:g} already")
            elif non_negative(network, source):
                yield Point((node,), f"{source.name} is not negative")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        bypass(network, point.nodes[0])
