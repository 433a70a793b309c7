"""A flatten of a map that is not in the layout (C, H, W) becomes one of the map as it is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from dianaq.inspection.arrangement import keeps_order
from dianaq_quant.editors.lower.merge_rearrangements import read
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, insert_after, layer_of, set_module
from dianaq_quant.modules.layout import Rearrange, Reorder, rearrange
from dianaq_quant.modules.structure import Flatten


class FlattenFirst(Editor):
    """`R(x) -> Reorder(Flatten(x))`, where R makes a vector of x."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, Rearrange):
            found = read(network, node)
            if isinstance(module, Rearrange) and found is not None and len(module.arrangement.shape) == 1:
                assert not keeps_order(found[0].meta["shape"], found[1]), "merging makes it a flatten"
                yield Point((node,), "it flattens a map that is not in the layout (C, H, W)")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        found = read(network, node)
        assert found is not None
        source, made = found
        shape = source.meta["shape"]
        places = torch.arange(torch.Size(shape).numel()).reshape(1, *shape)
        new = insert_after(network, node, Reorder(rearrange(places, made).flatten()), f"{layer_of(node)}_order")
        new.meta = dict(node.meta)
        set_module(network, node, Flatten())
