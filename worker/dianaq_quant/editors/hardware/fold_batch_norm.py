"""BatchNorm disappears into the layer before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from dianaq_quant.editors.canonicalise.batch_norm_to_conv import affine
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear


class FoldBatchNorm(Editor):
    """`BN(W x) -> (slope W) x + offset`, with `slope = gamma / sqrt(var + eps)`, `offset = beta - mean slope`.

    Jacob et al., 2018, section 3.2. The canonical form guarantees that the layer has no bias and no other reader.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, nn.BatchNorm1d, nn.BatchNorm2d):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            yield Point((source, node), f"{node.name} folded into weight and bias")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        layer, norm = (module_of(network, n) for n in point.nodes)
        assert isinstance(layer, FakeConv2d | FakeLinear)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        slope, offset = affine(norm)
        with torch.no_grad():
            layer.weight *= slope.reshape(-1, *[1] * (layer.weight.dim() - 1))
            layer.bias = nn.Parameter(offset.clone())
        bypass(network, point.nodes[1])
