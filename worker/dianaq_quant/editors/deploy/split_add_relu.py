"""A ReLU after an addition becomes an operation of its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from dianaq.schemas.ranges import QRange
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, free_name, module_of, set_module
from dianaq_quant.modules.integer import IntegerAdd, IntegerConv2d, IntegerLinear, IntegerRelu, Shift
from dianaq_quant.modules.structure import Geometry
from dianaq_quant.targets.diana import DIGITAL_WEIGHT_BYTES, INT8


class SplitAddRelu(Editor):
    """`clip((a + b) >> n, 0, hi) -> clip(clip((a + b) >> n, -128, 127), 0, hi)`.

    The add kernels of both compilers have no activation, and drop one silently. HTVM takes a Clip of its own behind
    the signed requantisation; DORY knows a ReLU only as part of a layer with weights: a 1 x 1 convolution (of vectors:
    a fully connected layer) with the identity as its weight. The name stays with the rectified value.

    Args:
        by_identity: the form for DORY.
    """

    def __init__(self, *, by_identity: bool) -> None:
        self.by_identity = by_identity

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, IntegerAdd):
            assert isinstance(module, IntegerAdd)
            channels = node.meta["shape"][0]
            if module.shift.qrange.lo < 0:
                yield Rejection(node, "it has no ReLU")
            elif self.by_identity and channels**2 + 4 * channels > DIGITAL_WEIGHT_BYTES:
                yield Rejection(node, f"the identity of {channels} channels exceeds {DIGITAL_WEIGHT_BYTES} bytes")
            else:
                form = (
                    "a layer of its own, with the identity as its weight" if self.by_identity else "a Clip of its own"
                )
                yield Point((node,), f"its ReLU is {form}")

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
        relu = _identity(node.meta["shape"], rectified) if self.by_identity else IntegerRelu(rectified)
        set_module(network, node, relu)


def _identity(shape: tuple[int, ...], rectified: QRange) -> nn.Module:
    """A layer that gives what it reads, rectified."""
    weight, bias, shift = torch.eye(shape[0]), torch.zeros(shape[0]), Shift(0, rectified)
    if len(shape) == 1:
        return IntegerLinear(weight, bias, shift)
    return IntegerConv2d(weight[:, :, None, None], bias, shift, Geometry((1, 1), (0, 0, 0, 0), (1, 1), 1))
