"""Activations that no core computes are replaced by those of the chip, as the job says."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from torch import fx, nn

from dianaq.schemas.substitution import Activation, Replacement
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, set_module
from dianaq_quant.modules.activations import KINDS, replacement

_ORIGINAL = "substituted"
"""Name in a node's `meta` of the module that was replaced there."""


def activations(network: fx.GraphModule) -> Iterator[tuple[fx.Node, Activation]]:
    """Nodes whose activation no core computes, with its kind."""
    for node, module in calls(network, *KINDS):
        yield node, KINDS[type(module)]


class Substitute(Editor):
    """`hardswish(x) -> relu6(x)`, and so on: another function, which the user has asked for.

    The editors that follow see the chip's activation; `with_originals` puts the others back into a copy.
    """

    def __init__(self, substitute: Mapping[Activation, Replacement]) -> None:
        self.substitute = substitute

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, kind in activations(network):
            if kind in self.substitute:
                yield Point((node,), f"{kind} became {self.substitute[kind]}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        original = network.get_submodule(str(node.target))
        node.meta[_ORIGINAL] = original
        set_module(network, node, replacement(self.substitute[KINDS[type(original)]]))


def with_originals(network: fx.GraphModule) -> fx.GraphModule | None:
    """A copy in which nothing was substituted, without gradients; None where nothing was. The network forgets it."""
    if not any(_ORIGINAL in node.meta for node in network.graph.nodes):
        return None
    original = copy.deepcopy(network).requires_grad_(False).eval()
    for node in original.graph.nodes:
        module = node.meta.pop(_ORIGINAL, None)
        if module is not None:
            assert isinstance(module, nn.Module)
            set_module(original, node, copy.deepcopy(module).requires_grad_(False).eval())
    for node in network.graph.nodes:
        node.meta.pop(_ORIGINAL, None)
    return original
