"""Reshapes in every spelling become one module each, or disappear."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import fx, nn

from dianaq_quant.editors.canonicalise.traced_call import Call, Chain, key_of, replace
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.modules.layout import reshape

_KEYS = {
    *("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"),
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, operator.getitem),
    *(nn.Flatten, nn.Unflatten),
}


class ModuliseReshapes(Editor):
    """`reshape(x) -> Flatten()(x)`, `Rearrange(...)(x)` or x, by what it does to a sample's shape.

    Values keep their order in memory, so that of several reshapes in a row only the last shape counts. An index
    (`x[:, :, 0, 0]`) is a reshape where it leaves no value out.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if is_reshape(network, node) and not _is_inner(network, node):
                _read(network, node)
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        replace(network, node, _read(network, node))


def is_reshape(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node gives the values it reads, in their order, in another shape."""
    if node.op not in ("call_function", "call_method", "call_module") or "shape" not in node.meta:
        return False
    one_of_several = node.target is operator.getitem and "shape" not in _source(node).meta  # of `chunk`, of an LSTM
    return key_of(network, node) in _KEYS and not one_of_several


def unreshaped(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The value that a node reads through any number of reshapes."""
    while is_reshape(network, node):
        source = _source(node)
        before, after = Call(network, node).shape(source), node.meta["shape"]
        if torch.Size(before).numel() != torch.Size(after).numel():
            raise Call(network, node).refuse(
                f"it takes {after} out of {before} per sample; slices are not supported, "
                "the whole tensor and a flatten would work"
            )
        node = source
    return node


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0] if node.args else node.kwargs["input"]
    assert isinstance(source, fx.Node)
    return source


def _is_inner(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether only other reshapes read a node."""
    return bool(node.users) and all(is_reshape(network, user) and _source(user) is node for user in node.users)


def _read(network: fx.GraphModule, node: fx.Node) -> Chain:
    source, after = unreshaped(network, node), tuple(node.meta["shape"])
    before = Call(network, node).shape(source)
    if not after:
        raise Call(network, node).refuse(f"it leaves one number per sample of {before}; (N, 1) would work")
    return Chain((source,), () if before == after else (reshape(before, after),))
