"""A network that rearranges its input first is given it as it needs it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.inspection.arrangement import inverse
from dianaq.inspection.interface import Own
from dianaq.schemas.resources import Arrangement
from dianaq_quant.editors.lower.merge_rearrangements import read
from dianaq_quant.editors.lower.pointwise import PLACED, POINTWISE, WINDOWED
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import input_node, insert_after, layer_of, module_of
from dianaq_quant.modules.layout import Rearrange

CANONICAL_RANKS = (1, 3)
"""Of a sample: a vector, or a map (C, H, W)."""


class LayInput(Editor):
    """`R(input) -> R(R^-1(input'))`: `input'` is the input as R makes it.

    R is the first rearrangement that what follows from the input value by value goes through; there is none where that
    is read as a map before. Other readers get `R^-1(input')`, and all these steps wander on until they cancel.
    `meta["own"]` of the input says what it was, and R.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        source = input_node(network)
        shape = source.meta["shape"]
        for node, made in _first(network, source):
            wanted = CANONICAL_RANKS if len(shape) not in CANONICAL_RANKS else (3,)
            if len(made.shape) not in wanted:
                continue
            if inverse(shape, made) is None:
                yield Rejection(node, "it cuts or merges dimensions before they move")
            else:
                yield Point((node,), f"the input of shape {shape} is fed as {_words(shape, made)}")
                return

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        source = input_node(network)
        shape = source.meta["shape"]
        found = read(network, point.nodes[0])
        assert found is not None
        made = found[1]
        back = inverse(shape, made)
        assert back is not None
        name = layer_of(point.nodes[0])
        new = insert_after(network, source, Rearrange(back), f"{name}_back")
        new.meta = point.nodes[0].meta | {"shape": shape}
        source.meta |= {"shape": made.shape, "own": Own(shape, made)}


def _first(network: fx.GraphModule, source: fx.Node) -> Iterator[tuple[fx.Node, Arrangement]]:
    """Rearrangements of what follows from the input value by value, until something reads that as the map it is."""
    reached = {source}
    for node in network.graph.nodes:
        if not node.all_input_nodes or not reached.issuperset(node.all_input_nodes):
            continue
        found = read(network, node)
        if found is not None:
            yield node, found[1]
        elif isinstance(module_of(network, node), (*POINTWISE, *PLACED)):
            reached.add(node)
        elif isinstance(module_of(network, node), WINDOWED):
            return


def _words(shape: tuple[int, ...], made: Arrangement) -> str:
    turned = made.axes != tuple(range(len(shape)))
    return f"{made.shape}" + (f", its dimensions in the order {made.axes}" if turned else "")
