"""Each call gets a module of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, free_name, layer_of


class SeparateCalls(Editor):
    """`m(x), m(y) -> m(x), m'(y)`, where m' holds the very parameters and buffers of m: what is tied stays tied.

    The editors after this one change a node by changing its module, which so must be called there alone.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        first: dict[nn.Module, fx.Node] = {}
        for node, module in calls(network, nn.Module):
            if module not in first:
                first[module] = node
                continue
            held = any(True for _ in (*module.parameters(), *module.buffers()))
            note = f"calls the module of {layer_of(first[module])} again: both keep the same parameters"
            yield Point((node,), note if held else "")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        assert isinstance(node.target, str)
        target = free_name(network, node.target)
        network.add_submodule(target, twin(network.get_submodule(node.target)))
        node.target = target


def twin(module: nn.Module) -> nn.Module:
    """Another module of the same parameters and buffers (the same objects, not copies)."""
    new = copy.copy(module)
    new._parameters, new._buffers = dict(module._parameters), dict(module._buffers)
    new._modules = {name: None if child is None else twin(child) for name, child in module._modules.items()}
    return new
