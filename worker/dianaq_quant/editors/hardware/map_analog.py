"""Convolutions move to the analog core."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.schemas.quantisers import QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import calls, core_of, module_of, set_module
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, fake_analog_conv
from dianaq_quant.modules.quantiser import WeightQuantiser


class MapAnalog(Editor):
    """`Q(W) x -> (ADC(T x / g) + 1/2) * g s_x s_w`: weights of the array's range, one scale per output channel.

    Args:
        qrange: integers of the weights; ternary, or a wider range on the way there.
    """

    def __init__(self, qrange: QRange) -> None:
        self.qrange = qrange

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, FakeConv2d, FakeAnalogConv2d):
            if isinstance(module, FakeAnalogConv2d) or core_of(node) == "analog":
                yield Point((node,), f"analog: weights in {self.qrange}, one scale per output channel")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        module = module_of(network, node)
        assert isinstance(module, FakeConv2d | FakeAnalogConv2d)
        quantiser = WeightQuantiser(_spec(self.qrange)).to(module.weight.device)
        quantiser.calibrate(module.weight)
        if isinstance(module, FakeConv2d):
            set_module(network, node, fake_analog_conv(module, quantiser, source_quantiser(network, node).scale))
        else:
            module.quantiser = quantiser


def _spec(qrange: QRange) -> QuantiserSpec:
    ternary = qrange.integers == (-1, 0, 1)
    return QuantiserSpec(range=qrange, granularity="per-outchannel_weights", function="ternary" if ternary else "ste")
