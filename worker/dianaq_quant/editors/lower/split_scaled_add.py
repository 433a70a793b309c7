"""A weighted sum becomes a sum."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from dianaq.inspection.fit_names import SCALE
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, free_name, layer_of, module_of, set_module
from dianaq_quant.modules.structure import Add, Affine, ScaledAdd


class SplitScaledAdd(Editor):
    """`a + f * b -> a + affine(b)`, also of one tensor: `x - x`. Differences are sums with f = -1."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, ScaledAdd):
            yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        module, (first, second) = module_of(network, node), node.args
        assert isinstance(module, ScaledAdd)
        assert isinstance(second, fx.Node)
        target = free_name(network, f"{layer_of(node)}_scale")
        network.add_submodule(target, Affine(torch.tensor([module.factor]), torch.zeros(1)))
        with network.graph.inserting_before(node):
            scaled = network.graph.call_module(target, (second,))
        scaled.meta = {**node.meta, "layer": f"{layer_of(node)}{SCALE}"}
        node.args = (first, scaled)
        set_module(network, node, Add())
