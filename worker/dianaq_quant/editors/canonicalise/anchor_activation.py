"""A ReLU that no layer can compute along with its requantisation gets a layer of its own."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.inspection.fit_names import IDENTITY
from dianaq_quant.editors.canonicalise.diagonal import identity
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, insert_between, layer_of, module_of
from dianaq_quant.modules.structure import Add, Ceiling, Conv2d


class AnchorActivation(Editor):
    """`relu(x) -> relu(identity(x))` where x is not the sole use of a linear layer, its BatchNorm or an addition.

    On the chip a ReLU is the lower bound of a requantisation's clip; it has no operation of its own. A ReLU6 moreover
    fixes the scale of what it gives, which only a layer can reach from any scale; an addition cannot.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, activation in calls(network, nn.ReLU, Ceiling):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            operation = module_of(network, source)
            computes = isinstance(operation, Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d) or (
                isinstance(operation, Add) and not isinstance(activation, Ceiling)
            )
            if not computes or len(source.users) > 1:
                yield Point((node,), f"{source.name} cannot be requantised with a ReLU: identity layer inserted")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        source = node.args[0]
        assert isinstance(source, fx.Node)
        shape = source.meta["shape"]
        layer = identity(shape[0], spatial=len(shape) == 3)
        insert_between(network, source, node, layer, f"{layer_of(node)}{IDENTITY}").meta["shape"] = shape
