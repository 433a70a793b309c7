"""A linear layer's bias before a BatchNorm moves into the BatchNorm's mean."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, only_user, tied_nodes
from dianaq_quant.modules.structure import Conv2d


class AbsorbBias(Editor):
    """`BN(Wx + b; mean) -> BN(Wx; mean - b)`: `(Wx + b) - mean = Wx - (mean - b)`.

    The new mean is another tensor: calls that share a BatchNorm, or a bias, each absorb their own, once. Of what such
    calls share only the running mean comes apart, to which each call then has its own.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        tied = tied_nodes(network)
        for node, layer in calls(network, Conv2d, nn.Linear):
            user = only_user(node)
            norm = module_of(network, user) if user else None
            if user is not None and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and layer.bias is not None:
                apart = "; its running mean is no longer tied to that of other calls" if user in tied else ""
                yield Point((node, user), f"bias moved into the following BatchNorm{apart}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        layer, norm = (module_of(network, n) for n in point.nodes)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert layer.bias is not None
        assert norm.running_mean is not None
        norm.running_mean = norm.running_mean - layer.bias.detach()
        layer.bias = None
