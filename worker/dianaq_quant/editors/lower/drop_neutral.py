"""Raw modules that leave their input as it is disappear."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls
from dianaq_quant.modules.structure import Affine, Clamp, Pad2d, Slice2d


class DropNeutral(Editor):
    """`1 * x + 0 -> x`, `pad(x, 0) -> x`, `x[:, :, :, :] -> x`, `clamp(x, -inf, inf) -> x`."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, Affine, Pad2d, Slice2d, Clamp):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if _is_neutral(module, source):
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        bypass(network, point.nodes[0])


def _is_neutral(module: nn.Module, source: fx.Node) -> bool:
    if isinstance(module, Affine):
        return bool((module.scale == 1).all()) and bool((module.shift == 0).all())
    if isinstance(module, Pad2d):
        return not any((*module.pads, *module.channels))
    if isinstance(module, Clamp):
        return (module.lo, module.hi) == (-float("inf"), float("inf"))
    return isinstance(module, Slice2d) and module.size == tuple(source.meta["shape"][1:])
