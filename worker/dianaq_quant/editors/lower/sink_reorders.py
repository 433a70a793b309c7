"""Reorderings of vectors go behind what computes value by value."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from dianaq_quant.editors.lower.pointwise import POINTWISE
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, insert_after, module_of, set_module
from dianaq_quant.modules.layout import Reorder
from dianaq_quant.modules.structure import Affine


class SinkReorders(Editor):
    """`f(P x) -> P f'(x)`: the constants of f', one per value, are those of f in the order of x."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, *POINTWISE, Affine, nn.BatchNorm1d):
            if _order(network, node) is not None:
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        order = _order(network, node)
        assert order is not None
        module = module_of(network, node)
        if isinstance(module, nn.BatchNorm1d):
            _reorder(module, torch.argsort(order))
        elif isinstance(module, Affine):
            scale, shift = (v[torch.argsort(order)] if len(v) > 1 else v for v in (module.scale, module.shift))
            set_module(network, node, Affine(scale, shift))
        former = node.all_input_nodes[0]
        new = insert_after(network, node, Reorder(order), str(former.target))
        new.meta = dict(former.meta)
        node.args = tuple(source.args[0] for source in node.args if isinstance(source, fx.Node))


def _order(network: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """The order in which all inputs of a node are put, if it is one."""
    found = [module_of(network, source) for source in node.all_input_nodes]
    orders = [module.order for module in found if isinstance(module, Reorder)]
    if not orders or len(orders) < len(found) or any(not torch.equal(orders[0], other) for other in orders):
        return None
    return orders[0]


def _reorder(norm: nn.BatchNorm1d, order: Tensor) -> None:
    """New parameters and buffers in another order; another layer may hold the former ones."""
    with torch.no_grad():
        for name in ("weight", "bias"):
            former = getattr(norm, name)
            setattr(norm, name, nn.Parameter(former[order], requires_grad=former.requires_grad))
        for name in ("running_mean", "running_var"):
            setattr(norm, name, getattr(norm, name)[order])
