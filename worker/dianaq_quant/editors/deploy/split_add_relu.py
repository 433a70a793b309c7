"""A ReLU after an addition becomes an operation of its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, free_name, module_of, set_module
from dianaq_quant.modules.integer import IntegerAdd, IntegerConv2d, IntegerRelu, Shift
from dianaq_quant.modules.structure import Geometry
from dianaq_quant.targets.diana import INT8


class SplitAddRelu(Editor):
    """`clip((a + b) >> n, 0, hi) -> clip(clip((a + b) >> n, -128, 127), 0, hi)`.

    The add kernels of both compilers have no activation, and drop one silently. HTVM takes a Clip of its own behind
    the signed requantisation; DORY knows a ReLU only as part of a convolution: one of 1 x 1 with the identity as its
    weight. The name stays with the rectified value.

    Args:
        by_convolution: the form for DORY.
    """

    def __init__(self, *, by_convolution: bool) -> None:
        self.by_convolution = by_convolution

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, IntegerAdd):
            assert isinstance(module, IntegerAdd)
            if module.shift.qrange.lo >= 0:
                form = "a 1 x 1 convolution with the identity" if self.by_convolution else "a Clip of its own"
                yield Point((node,), f"its ReLU is {form}")
            else:
                yield Rejection(node, "it has no ReLU")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        module = module_of(network, node)
        assert isinstance(module, IntegerAdd)
        rectified = module.shift.qrange
        target = free_name(network, f"{node.target}_sum")
        network.add_submodule(target, IntegerAdd(Shift(module.shift.shift, INT8)))
        with network.graph.inserting_before(node):
            total = network.graph.call_module(target, node.args)
        total.meta = {**node.meta, "part_of": str(node.target)}
        node.args = (total,)
        relu: nn.Module = IntegerRelu(rectified)
        if self.by_convolution:
            channels = node.meta["shape"][0]
            identity = torch.eye(channels).reshape(channels, channels, 1, 1)
            geometry = Geometry((1, 1), (0, 0, 0, 0), (1, 1), 1)
            relu = IntegerConv2d(identity, torch.zeros(channels), Shift(0, rectified), geometry)
        set_module(network, node, relu)
