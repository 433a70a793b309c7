"""Activation functions become quantisers."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.errors import QuantisationError
from dianaq.ranges import QRange
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, layer_of, module_of, set_module
from dianaq_quant.modules.fake import FakeQuantiser
from dianaq_quant.modules.structure import Ceiling


class ConvertActivations(Editor):
    """`relu(x) -> Q(x)` with a range that starts at 0: clipping at 0 is the ReLU."""

    def __init__(self, qrange: QRange) -> None:
        self.qrange = QRange(n_levels=qrange.levels, signed=False)

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, nn.LeakyReLU):
            raise QuantisationError(
                f"{layer_of(node)}: no core computes a LeakyReLU ({module.negative_slope}); ReLU or ReLU6 would work",
                param=layer_of(node),
            )
        for node, _ in calls(network, nn.ReLU, Ceiling):
            yield Point((node,), f"rectified activation in [0, {self.qrange.hi}]")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        module = module_of(network, node)
        ceiling = float(module.max_val) if isinstance(module, Ceiling) else None
        set_module(network, node, FakeQuantiser(self.qrange, ceiling=ceiling))
