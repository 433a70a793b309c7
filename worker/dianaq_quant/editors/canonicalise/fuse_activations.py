"""Two activations in a row become one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, only_user
from dianaq_quant.modules.structure import Ceiling


class FuseActivations(Editor):
    """`min(max(f(x), 0), c) -> min(max(x, 0), c)` for f a ReLU, or saturating at c or above, read by no other."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, nn.ReLU, Ceiling):
            ceiling = float(module.max_val) if isinstance(module, Ceiling) else float("inf")
            for user in node.users:
                after = module_of(network, user)
                if not isinstance(after, Ceiling) or after.max_val > ceiling:
                    continue
                if only_user(node) is None:
                    yield Rejection(node, f"{user.name} saturates it, but others read it too")
                else:
                    yield Point((node,), f"{user.name} does what it does, and saturates")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        bypass(network, point.nodes[0])
