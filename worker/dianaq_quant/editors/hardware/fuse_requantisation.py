"""A layer and its quantiser become one operation of the chip."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.editors.hardware.plan import ScalePlan
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import bypass, calls, module_of, set_module
from dianaq_quant.modules.exact import (
    ExactAdd,
    ExactAnalogConv2d,
    ExactConv2d,
    ExactGlobalAvgPool2d,
    ExactLinear,
    Requantisation,
)
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, FakeLinear
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Add, GlobalAvgPool2d
from dianaq_quant.targets.diana import ANALOG_INPUT, RECTIFIED

_OPERATIONS = FakeConv2d | FakeLinear | FakeAnalogConv2d | Add | GlobalAvgPool2d


class FuseRequantisation(Editor):
    """`Q(W x + b) -> clip((acc + bias) >> n)` on integers; likewise additions and global average pools.

    Of an analog layer: `Q((a + T/2) g s_x s_w slope + b) -> clip((a k + l) >> n)`.
    """

    def __init__(self, plan: ScalePlan, batch_norm_bits: int) -> None:
        self.plan, self.batch_norm_bits = plan, batch_norm_bits

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        # Last first: a fused node no longer is the quantiser that the layers after it look up.
        for quantiser, module in reversed(list(calls(network, FakeQuantiser))):
            node = quantiser.args[0]
            assert isinstance(node, fx.Node)
            assert isinstance(module, FakeQuantiser)
            if isinstance(module_of(network, node), _OPERATIONS):
                shift = self.plan.shifts.get(node, 0)
                note = f"shift {shift}, clip [{module.qrange.lo}, {module.qrange.hi}]"
                yield Point((node, quantiser), note)

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, follower = point.nodes
        operation, quantiser = module_of(network, node), module_of(network, follower)
        assert isinstance(quantiser, FakeQuantiser)
        requantise = Requantisation(
            self.plan.activations[source_quantiser(network, node).scale],
            self.plan.activations[quantiser.scale],
            self.plan.shifts.get(node, 0),
            quantiser.qrange,
        )
        exact: nn.Module
        if isinstance(operation, FakeConv2d):
            exact = ExactConv2d(operation, operation.quantiser.qrange, requantise)
        elif isinstance(operation, FakeLinear):
            exact = ExactLinear(operation, operation.quantiser.qrange, requantise)
        elif isinstance(operation, FakeAnalogConv2d):
            read, gain = source_quantiser(network, node).qrange, self.plan.gains[node]
            assert read in (ANALOG_INPUT, RECTIFIED), "mapped to the core that reads it"
            exact = ExactAnalogConv2d(operation, gain, requantise, self.batch_norm_bits)
        elif isinstance(operation, Add):
            exact = ExactAdd(requantise)
        else:
            exact = ExactGlobalAvgPool2d(quantiser.qrange)
        set_module(network, node, exact)
        node.meta["scale"] = requantise.out_scale
        bypass(network, follower)
