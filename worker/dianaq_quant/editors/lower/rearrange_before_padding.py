"""Rearrangements go in front of the padding that they read."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.inspection.arrangement import source_axis
from dianaq.schemas.resources import Arrangement
from dianaq_quant.editors.lower.merge_rearrangements import read
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, insert_between, layer_of, module_of, only_user, set_module
from dianaq_quant.modules.layout import Rearrange
from dianaq_quant.modules.structure import Pad2d

Shape = tuple[int, ...]


class RearrangeBeforePadding(Editor):
    """`R(pad(x)) -> pad'(R'(x))`, where R moves whole dimensions and nothing else reads the padded tensor.

    Converters from channels-last networks pad before they transpose: `pad` here sees (N, H, W, C).
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, Pad2d):
            user = only_user(node)
            if user is not None and _moved(network, node, user) is not None:
                yield Point((node, user))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, user = point.nodes
        moved = _moved(network, node, user)
        assert moved is not None
        pad, made = moved
        (source,) = node.all_input_nodes
        new = insert_between(network, source, node, Rearrange(made), layer_of(user))
        new.meta = user.meta | {"shape": made.shape}
        set_module(network, node, pad)
        node.meta["shape"] = user.meta["shape"]
        bypass(network, user)


def _moved(network: fx.GraphModule, node: fx.Node, user: fx.Node) -> tuple[Pad2d, Arrangement] | None:
    """The padding behind a rearrangement, and that in front of it; None where it does not move whole dimensions."""
    pad, found = module_of(network, node), read(network, user)
    assert isinstance(pad, Pad2d)
    if found is None or len(found[1].shape) != 3:
        return None
    (source,) = node.all_input_nodes
    before, after = source.meta["shape"], node.meta["shape"]
    top, left, bottom, right = pad.pads
    widths = [pad.channels, (top, bottom), (left, right)]
    axes = [source_axis(after, found[1], dim) for dim in range(3)]
    if any(any(widths[axis]) and axis not in axes for axis in range(3)):
        return None
    if any(axis is None and found[1].shape[dim] != 1 for dim, axis in enumerate(axes)):
        return None
    channels, vertical, horizontal = ((0, 0) if axis is None else widths[axis] for axis in axes)
    shape = tuple(1 if axis is None else before[axis] for axis in axes)
    moved = Pad2d((vertical[0], horizontal[0], vertical[1], horizontal[1]), channels)
    return moved, Arrangement(axes=found[1].axes, shape=shape)
