"""BatchNorm disappears into the layer before it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.editors.canonicalise.batch_norm_to_conv import affine
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, tied_nodes
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, FakeLinear
from dianaq_quant.targets.diana import INT8


class FoldBatchNorm(Editor):
    """`BN(W x) -> (slope W) x + offset`, with `slope = gamma / sqrt(var + eps)`, `offset = beta - mean slope`.

    Jacob et al., 2018, section 3.2. The canonical form guarantees that the layer has no bias and no other reader.
    An analog layer's weights stay as they are: slope and offset come after its converter, and become the integers
    `k` and `l`. A weight that calls share is untied: each call gets a folded one of its own.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        tied = tied_nodes(network)
        for node, _ in calls(network, nn.BatchNorm1d, nn.BatchNorm2d):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            layer = module_of(network, source)
            where = "slope and offset after the converter" if _is_analog(network, source) else "weight and bias"
            if isinstance(layer, FakeConv2d | FakeLinear) and layer.quantiser.qrange.levels < INT8.levels:
                where += f" (whose range {layer.quantiser.qrange} now holds channels of different slopes)"
            apart = ", which no longer are tied to those of other calls" if source in tied else ""
            yield Point((source, node), f"{node.name} folded into {where}{apart}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        layer, norm = (module_of(network, n) for n in point.nodes)
        assert isinstance(layer, FakeConv2d | FakeLinear | FakeAnalogConv2d)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        slope, offset = affine(norm)
        if isinstance(layer, FakeAnalogConv2d):
            layer.slope = slope.clone()
        else:
            # Out of place: another layer may hold the same weight.
            layer.weight = nn.Parameter(layer.weight.detach() * slope.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias = nn.Parameter(offset.clone())
        bypass(network, point.nodes[1])


def _is_analog(network: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(network, node), FakeAnalogConv2d)
