"""Rearrangements go behind what computes value by value."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.inspection.arrangement import inverse
from dianaq.schemas.resources import Arrangement
from dianaq_quant.editors.lower.merge_rearrangements import read
from dianaq_quant.editors.lower.pointwise import POINTWISE, SLOPED
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, insert_after, module_of, set_module
from dianaq_quant.modules.activations import SlopedReLU
from dianaq_quant.modules.layout import Rearrange, rearrange

Shape = tuple[int, ...]


class SinkRearrangements(Editor):
    """`f(R(x)) -> R(f'(x))`, and `R(x) + R(y) -> R(x + y)`; not of a flatten, which is canonical where it is.

    f' is f, and where its slope differs from place to place, with the slopes at their places in x.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, *POINTWISE, *SLOPED):
            if _may_sink(network, node):
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        found = common(network, node)
        assert found is not None
        sources, made = found
        module, shape = module_of(network, node), sources[0].meta["shape"]
        if isinstance(module, SLOPED):
            set_module(network, node, _sloped(module, shape, made))
        node.meta["shape"] = shape
        sink(network, node, sources, made)


def _may_sink(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether all that a node reads is rearranged alike, and slopes that differ can be brought to their places."""
    found = common(network, node)
    if found is None:
        return False
    sources, made = found
    return not isinstance(module_of(network, node), SLOPED) or inverse(sources[0].meta["shape"], made) is not None


def common(network: fx.GraphModule, node: fx.Node) -> tuple[list[fx.Node], Arrangement] | None:
    """What a node reads through rearrangements that are all the same, and these; None where they are not."""
    found = [read(network, source) for source in node.args if isinstance(source, fx.Node)]
    raw = all(isinstance(module_of(network, source), Rearrange) for source in node.all_input_nodes)
    pairs = [pair for pair in found if pair is not None]
    if not raw or not pairs or len(pairs) < len(found):
        return None
    shapes = {source.meta["shape"] for source, _ in pairs}
    (_, made), *others = pairs
    if len(shapes) > 1 or any(other != made for _, other in others):
        return None
    return [source for source, _ in pairs], made


def sink(network: fx.GraphModule, node: fx.Node, sources: list[fx.Node], made: Arrangement) -> fx.Node:
    """Let a node read these sources, and put a rearrangement behind it, which keeps the name of the one before."""
    former = node.all_input_nodes[0]
    new = insert_after(network, node, Rearrange(made), str(former.target))
    new.meta = former.meta | {"shape": made.shape}
    node.args = tuple(sources)
    return new


def _sloped(module: nn.PReLU | SlopedReLU, shape: Shape, made: Arrangement) -> SlopedReLU:
    """A leaky ReLU of what is yet to be rearranged from a shape."""
    slope = module.slope if isinstance(module, SlopedReLU) else module.weight
    if isinstance(module, nn.PReLU):
        slope = slope.detach().reshape(-1, *[1] * (len(made.shape) - 1))  # a value per channel, or one
    back = inverse(shape, made)
    assert back is not None, "looked at before"
    if slope.numel() == 1:
        return SlopedReLU(slope.reshape(1))
    whole = slope.reshape(slope.shape[-len(made.shape) :]).expand(made.shape)
    return SlopedReLU(rearrange(whole[None], back))
