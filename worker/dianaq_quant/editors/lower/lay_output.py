"""A network that rearranges what it gives, last of all, gives it as it was computed."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.inspection.arrangement import inverse
from dianaq.inspection.interface import Own
from dianaq_quant.editors.lower.merge_rearrangements import read
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, module_of, output_node
from dianaq_quant.modules.layout import Rearrange


class LayOutput(Editor):
    """`return R(x) -> return x`, for a map x whose dimensions R exchanges, or leaves out where they are 1.

    `meta["own"]` of the output says what R made, and what leads back from it.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        node = output_node(network)
        found = read(network, node)
        if found is None or not isinstance(module_of(network, node), Rearrange):
            return
        source, made = found
        shape = source.meta["shape"]
        moved = [shape[axis] for axis in made.axes if shape[axis] != 1]
        if len(shape) != 3 or len(made.shape) < 2 or moved != [size for size in made.shape if size != 1]:
            yield Rejection(node, f"it makes {made.shape} of {shape} per sample")
        elif len(node.users) == 1:
            yield Point((node,), f"the output is given as {shape} instead of {made.shape}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        found = read(network, node)
        assert found is not None
        source, made = found
        back = inverse(source.meta["shape"], made)
        assert back is not None, "whole dimensions are exchanged"
        network.graph.output_node().meta["own"] = Own(made.shape, back)
        bypass(network, node)
