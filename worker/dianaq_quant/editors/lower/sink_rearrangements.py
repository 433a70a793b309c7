"""Rearrangements go behind what computes value by value."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.inspection.arrangement import inverse
from dianaq.schemas.resources import Arrangement
from dianaq_quant.editors.lower.merge_rearrangements import read
from dianaq_quant.editors.lower.pointwise import PLACED, POINTWISE, SLOPED
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, insert_after, module_of, set_module
from dianaq_quant.modules.activations import SlopedReLU
from dianaq_quant.modules.broadcast import along_one_dimension
from dianaq_quant.modules.layout import Rearrange, rearrange
from dianaq_quant.modules.structure import Affine

Shape = tuple[int, ...]


class SinkRearrangements(Editor):
    """`f(R(x)) -> R(f'(x))`, and `R(x) + R(y) -> R(x + y)`; not of a flatten, which is canonical where it is.

    f' is f, and where its constants differ from place to place, with each at its place in x.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, *POINTWISE, *PLACED):
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
        elif isinstance(module, Affine):
            set_module(network, node, moved_affine(module, shape, made))
        node.meta["shape"] = shape
        sink(network, node, sources, made)


def _may_sink(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether all that a node reads is rearranged alike, and constants that differ can be brought to their places."""
    found = common(network, node)
    if found is None:
        return False
    sources, made = found
    module, shape = module_of(network, node), sources[0].meta["shape"]
    if isinstance(module, Affine):
        return _at_their_places(module, shape, made) is not None
    return not isinstance(module, SLOPED) or inverse(shape, made) is not None


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


def moved_affine(affine: Affine, shape: Shape, made: Arrangement) -> Affine:
    """The affine map of what is yet to be rearranged from a shape."""
    moved = _at_their_places(affine, shape, made)
    assert moved is not None, "looked at before"
    return moved


def _at_their_places(affine: Affine, shape: Shape, made: Arrangement) -> Affine | None:
    """The affine map with its constants at their places before the rearrangement; None where they differ too much."""
    if len(affine.scale) == len(affine.shift) == 1:
        return affine
    back = inverse(shape, made)
    if back is None:
        return None
    where = [-1 if dim == affine.dim else 1 for dim in range(1, len(made.shape) + 1)]
    found = []
    for values in (affine.scale, affine.shift):
        whole = values.reshape(where if len(values) > 1 else [1] * len(made.shape)).expand(made.shape)
        try:
            found.append(along_one_dimension(rearrange(whole[None], back), shape))
        except ValueError:
            return None
    dims = {dim for values, dim in found if len(values) > 1}
    return Affine(found[0][0], found[1][0], dims.pop() if dims else 1) if len(dims) < 2 else None
