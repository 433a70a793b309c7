"""Rearrangements in a row become one, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.inspection.arrangement import followed, keeps_order, unchanged
from dianaq.schemas.resources import Arrangement
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, module_of, set_module
from dianaq_quant.modules.layout import Rearrange, arrangement_of, rearranging
from dianaq_quant.modules.structure import Flatten

NAMES = ("layer", "operation")
"""What messages call a rearrangement by: the step that moves values, not the reshape behind it."""


class MergeRearrangements(Editor):
    """`R2(R1(x)) -> R(x)`, and `R(x) -> x` where it leaves x as it is; `Flatten` is one of them."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if _merged(network, node) is not None:
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        found = _merged(network, node)  # anew: the one before it may have been merged itself
        if found is None:
            return
        source, made = found
        shape, former = source.meta["shape"], node.all_input_nodes[0]
        if former is not source and not keeps_order(shape, made) and not _keeps_order(network, former):
            node.meta |= {key: former.meta[key] for key in NAMES if key in former.meta}
        node.replace_input_with(former, source)
        if keeps_order(shape, made) and made.shape == shape:
            bypass(network, node)
        else:
            names = {key: node.meta[key] for key in NAMES if key in node.meta}
            set_module(network, node, rearranging(shape, made))
            node.meta |= names


def _keeps_order(network: fx.GraphModule, node: fx.Node) -> bool:
    found = read(network, node)
    return found is None or keeps_order(found[0].meta["shape"], found[1])


def _merged(network: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Arrangement] | None:
    """What a node reads through the rearrangement before it, and both as one; None where there is nothing to merge."""
    found = read(network, node)
    if found is None:
        return None
    source, made = found
    before = read(network, source)
    if before is None:
        shape = source.meta["shape"]
        return (source, made) if made == unchanged(shape) else None
    first, earlier = before
    together = followed(first.meta["shape"], earlier, made)
    return None if together is None else (first, together)


def read(network: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Arrangement] | None:
    """What a node rearranges, and how; None where it does something else."""
    module = module_of(network, node)
    if not isinstance(module, Rearrange | Flatten):
        return None
    (source,) = node.all_input_nodes
    return source, arrangement_of(module, source.meta["shape"])
