"""What reads the network's input is made linear."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.inspection.fit_names import IDENTITY
from dianaq_quant.editors.canonicalise.diagonal import identity
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import input_node, insert_between, layer_of, module_of
from dianaq_quant.modules.structure import Conv2d, Flatten


class AnchorInput(Editor):
    """`op(input) -> op(identity(input))` unless op is linear (or a flatten that only linear layers read).

    The input's scale is free and its rounding constant goes into the bias of what reads it; DORY moreover
    accepts only Conv or Gemm as the first node.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for user in input_node(network).users:
            if user.op == "output" or not _linear(network, user):
                yield Point((user,), "reads the input and is not linear: identity layer inserted")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (user,) = point.nodes
        source = input_node(network)
        shape = source.meta["shape"]
        layer = identity(shape[0], spatial=len(shape) == 3)
        insert_between(network, source, user, layer, f"{layer_of(user)}{IDENTITY}").meta["shape"] = shape


def _linear(network: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(network, node)
    if isinstance(module, Flatten):
        return all(_linear(network, user) for user in node.users)
    return isinstance(module, Conv2d | nn.Linear)
