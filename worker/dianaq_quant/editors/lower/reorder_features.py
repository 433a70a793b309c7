"""A fully connected layer takes a vector in whatever order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.layout import Reorder


class ReorderFeatures(Editor):
    """`W (P x) -> (W P) x`: the columns of the weight change places. The weight is another one then, tied to none."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, nn.Linear):
            (source,) = node.all_input_nodes
            if isinstance(module_of(network, source), Reorder):
                yield Point((node,), "the columns of its weight are in the order in which the map is flattened")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        (source,) = node.all_input_nodes
        reorder, linear = module_of(network, source), module_of(network, node)
        assert isinstance(reorder, Reorder)
        assert isinstance(linear, nn.Linear)
        new = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        with torch.no_grad():
            new.weight = nn.Parameter(linear.weight[:, torch.argsort(reorder.order)])
        new.bias = linear.bias
        set_module(network, node, new.eval())
        node.args = (source.args[0],)
