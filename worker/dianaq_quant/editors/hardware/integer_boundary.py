"""Real numbers become integers at the input and real again at the output."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from dianaq_quant.editors.hardware.plan import ScalePlan
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import linear_readers
from dianaq_quant.graph.surgery import (
    calls,
    insert_after,
    module_of,
    output_node,
    set_module,
)
from dianaq_quant.modules.exact import ExactAnalogConv2d, ExactConv2d, ExactInput, ExactLinear, ExactOutput
from dianaq_quant.modules.pixels import PixelInput, PixelQuantiser
from dianaq_quant.modules.quantiser import FakeQuantiser


class IntegerBoundary(Editor):
    """`Q(x; s) -> clip(floor(x / s))` at the input, and `y -> s y` at the output.

    The compilers' input quantisation is a floor, so an integer k stands for the middle of its bin, `(k + 1/2) s`;
    the half step goes into the bias of the layers that read it: `b + s/2 * sum(W)`. An analog layer has no bias before
    its converter, and gets it after. Pixels are integers already, and are themselves.
    """

    def __init__(self, plan: ScalePlan) -> None:
        self.plan = plan

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, FakeQuantiser):
            assert isinstance(module, FakeQuantiser)
            yield Point((node,), f"input clipped to [{module.qrange.lo}, {module.qrange.hi}]")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        quantiser = module_of(network, node)
        assert isinstance(quantiser, FakeQuantiser)
        scale = self.plan.activations[quantiser.scale]
        node.meta["scale"] = scale
        if isinstance(quantiser, PixelQuantiser):
            set_module(network, node, PixelInput(quantiser.grid))
        else:
            set_module(network, node, ExactInput(scale, quantiser.qrange))
            _add_half_steps(network, node, scale)
        sink = output_node(network)
        insert_after(network, sink, ExactOutput(_scale_of(sink)), "output_scale")


def _add_half_steps(network: fx.GraphModule, node: fx.Node, scale: float) -> None:
    """Give the layers that read the input what its floor took, half a step on average."""
    for reader in linear_readers(network, node):
        layer = module_of(network, reader)
        with torch.no_grad():
            if isinstance(layer, ExactAnalogConv2d):
                layer.bias.add_(layer.step / layer.adc.gain * layer.integer_weight().flatten(1).sum(1) / 2)
            else:
                assert isinstance(layer, ExactConv2d | ExactLinear)
                layer.bias.add_(scale / 2 * layer.weight.flatten(1).sum(1))


def _scale_of(node: fx.Node) -> float:
    """The scale of a node's value: its own, or that of what it passes on."""
    while "scale" not in node.meta:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return float(node.meta["scale"])
