"""BatchNorm disappears into the layer before it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.editors.canonicalise.batch_norm_to_conv import affine
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, tied_nodes
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear


class FoldBatchNorm(Editor):
    """`BN(W x) -> (slope W) x + offset`, with `slope = gamma / sqrt(var + eps)`, `offset = beta - mean slope`.

    Jacob et al., 2018, section 3.2. The canonical form guarantees that the layer has no bias and no other reader.

    A weight that calls share is untied: each call gets a folded one of its own.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        tied = tied_nodes(network)
        for node, _ in calls(network, nn.BatchNorm1d, nn.BatchNorm2d):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            apart = ", which no longer are tied to those of other calls" if source in tied else ""
            yield Point((source, node), f"{node.name} folded into weight and bias{apart}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        layer, norm = (module_of(network, n) for n in point.nodes)
        assert isinstance(layer, FakeConv2d | FakeLinear)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        slope, offset = affine(norm)
        # Out of place: another layer may hold the same weight.
        layer.weight = nn.Parameter(layer.weight.detach() * slope.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias = nn.Parameter(offset.clone())
        bypass(network, point.nodes[1])
