"""Checks of the nodes that move values. Whether a whole network can do without them is for the importer to find out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dianaq.inspection.network import Network, Node, Rule, Shape, Shapes


def _keeps_batch(node: Node, network: Network, shapes: Shapes) -> None:
    """The samples stay apart, in the first dimension."""
    before, after = shapes[node.inputs[0]], shapes[node.outputs[0]]
    if len(after) < 2 or after[0] != before[0]:
        rest = math.prod(before[1:])
        raise node.refused(f"makes {after} of {before}, and the batch is {before[0]} samples of {rest:,} values each")


def _squeeze(node: Node, network: Network, shapes: Shapes) -> None:
    if node_axes(node, network) is None and shapes[node.inputs[0]][0] == 1:
        raise node.refused("names no axes, and so takes the batch of one sample away too")
    _keeps_batch(node, network, shapes)


def _transpose(node: Node, network: Network, shapes: Shapes) -> None:
    rank = len(shapes[node.inputs[0]])
    order = list(node.attributes.get("perm", range(rank - 1, -1, -1)))
    if order[0] != 0:
        raise node.refused(f"has perm {order}, which moves the batch")


def _unsqueeze(node: Node, network: Network, shapes: Shapes) -> None:
    axes = node_axes(node, network)
    rank = len(shapes[node.outputs[0]])
    if axes is None or any(axis % rank == 0 for axis in axes):
        raise node.refused(f"has axes {axes}")


def reduction(node: Node, network: Network, shapes: Shapes) -> None:
    """All dimensions but the batch and one more, which is the channels."""
    shape, axes = shapes[node.inputs[0]], node_axes(node, network)
    kept = kept_axes(shape, axes)
    if axes is None or kept[:1] != [0] or len(kept) != 2 or len(shape) < 3:
        raise node.refused(f"reduces the axes {axes} of the shape {shape[1:]}")


def kept_axes(shape: Shape, axes: list[int] | None) -> list[int]:
    """The axes that a reduction leaves."""
    gone = {axis % len(shape) for axis in axes or ()}
    return [axis for axis in range(len(shape)) if axis not in gone]


def node_axes(node: Node, network: Network) -> list[int] | None:
    """Axes of a node: an attribute, or the second input in later opsets; None without, or if they are computed."""
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        constant = network.constant(node.input(1))
        axes = None if constant is None else constant.reshape(-1).tolist()
    return None if axes is None else [int(axis) for axis in axes]


RULES: Mapping[str, Rule] = {
    "Flatten": _keeps_batch,
    "Reshape": _keeps_batch,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
