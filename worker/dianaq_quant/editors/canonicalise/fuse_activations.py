"""Two activations in a row become one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, only_user
from dianaq_quant.modules.structure import Ceiling


class FuseActivations(Editor):
    """`min(max(f(x), 0), c) -> min(max(x, 0), c)` for f a ReLU or a saturating activation that nothing else reads."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, nn.ReLU, Ceiling):
            after = next((user for user in node.users if isinstance(module_of(network, user), Ceiling)), None)
            if after is not None and only_user(node) is None:
                yield Rejection(node, f"{after.name} saturates it, but others read it too")
            elif after is not None:
                yield Point((node,), f"{after.name} does what it does, and saturates")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        bypass(network, point.nodes[0])
