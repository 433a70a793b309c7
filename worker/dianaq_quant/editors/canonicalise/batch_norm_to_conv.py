"""A BatchNorm that cannot be folded into a layer before it becomes a layer of its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from dianaq_quant.editors.canonicalise.diagonal import diagonal
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.structure import Conv2d


def affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Slope and offset per channel of a BatchNorm in evaluation: `gamma / sqrt(var + eps)`, `beta - mean * slope`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return slope, norm.bias.detach() - norm.running_mean * slope


class BatchNormToConv(Editor):
    """`BN(x) -> slope * x + offset` as a depthwise 1x1 convolution, where no linear layer is just before it."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, nn.BatchNorm1d, nn.BatchNorm2d):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if not isinstance(module_of(network, source), Conv2d | nn.Linear):
                yield Point((node,), "no linear layer before it: became a depthwise 1x1 layer")
            elif len(source.users) > 1:
                yield Point((node,), f"{source.name} is read elsewhere too: became a depthwise 1x1 layer")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        norm = module_of(network, node)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        node.meta["inserted"] = True
        set_module(network, node, diagonal(*affine(norm), spatial=isinstance(norm, nn.BatchNorm2d)))
