"""Rules for operators that compute with constants, bound values, pad a map or take a part of it.

What only its neighbours decide (a shift before a padded convolution, a bound below zero after a ReLU) is accepted here
and judged by the importer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from dianaq.inspection.network import Network, Node, Rule, Shapes

_NO_BOUND = 1e30
"""A Clip whose bound is beyond this has none: exporters write the largest float32 there."""

_BOUNDING = frozenset({"Relu", "Clip", "Min", "Max"})
"""Operators whose bounds and those of a Clip or Min after them are one."""


def _constants(node: Node, network: Network) -> list[str]:
    return [name for name in node.inputs if network.constant(name) is not None]


def _keeps_the_shape(node: Node, network: Network, shapes: Shapes) -> None:
    """Refuse a constant that is broadcast to more values than the activation has."""
    (other,) = (name for name in node.inputs if name not in _constants(node, network))
    if shapes[node.outputs[0]] != shapes[other]:
        raise node.refused(
            f"makes {shapes[node.outputs[0]][1:]} of {shapes[other][1:]}; a constant that fits it keeps the shape"
        )


def add(node: Node, network: Network, shapes: Shapes) -> None:
    """Add, Sub, and Sum of two: two activations of one shape, or one and a constant."""
    if _constants(node, network):
        _one_constant(node, network, shapes)
        return
    left, right = (shapes[name] for name in node.inputs)
    if left != right:
        raise node.refused(f"takes the shapes {left[1:]} and {right[1:]}")


def _one_constant(node: Node, network: Network, shapes: Shapes) -> None:
    if len(_constants(node, network)) != 1:
        raise node.refused("takes constants only; fold constants before the export")
    _keeps_the_shape(node, network, shapes)


def _sum(node: Node, network: Network, shapes: Shapes) -> None:
    if len(node.inputs) > 2:
        raise node.refused(f"adds {len(node.inputs)} tensors")
    if len(node.inputs) == 2:
        add(node, network, shapes)


def _mul(node: Node, network: Network, shapes: Shapes) -> None:
    if not _constants(node, network):
        raise node.refused("multiplies two activations, which no core does")
    _one_constant(node, network, shapes)


def _div(node: Node, network: Network, shapes: Shapes) -> None:
    divisor = network.constant(node.input(1))
    if divisor is None:
        raise node.refused("divides by an activation, which no core does")
    if not divisor.all():
        raise node.refused(f"divides by {node.input(1)!r}, which holds 0")
    _one_constant(node, network, shapes)


def _bound(node: Node, network: Network, shapes: Shapes) -> None:
    """Min and Max: of one activation and one number."""
    if len(node.inputs) == 1:
        return
    values = [network.constant(name) for name in node.inputs]
    numbers = [v for v in values if v is not None]
    if len(node.inputs) != 2 or len(numbers) != 1:
        raise node.refused("compares activations, which no core does")
    if numbers[0].size == 0 or (numbers[0] != numbers[0].flat[0]).any():
        raise node.refused(f"bounds by a constant of shape {numbers[0].shape} whose values differ")
    _keeps_the_shape(node, network, shapes)


def _clip(node: Node, network: Network, shapes: Shapes) -> None:
    bounds: list[float | None] = []
    for index, name in enumerate(("min", "max"), start=1):
        given = network.constant(node.input(index)) if node.input(index) else node.attributes.get(name)
        if node.input(index) and given is None:
            raise node.refused(f"takes {name} from {node.input(index)!r}, which the graph computes")
        bounds.append(None if given is None else float(np.asarray(given).reshape(-1)[0]))
    low, high = bounds
    before = next((n.operator for n in network.nodes if node.inputs[0] in n.outputs), "")
    if high is not None and high > _NO_BOUND:
        high = None
    if before not in _BOUNDING and (low != 0 or (high is not None and high <= 0)):
        raise node.refused(f"has the bounds {low} and {high}")


def _cast(node: Node, network: Network, shapes: Shapes) -> None:
    to = node.attributes.get("to")
    if to != onnx.TensorProto.FLOAT:
        types = onnx.TensorProto.DataType
        raise node.refused(f"makes {types.Name(to).lower() if to in types.values() else to} of an activation")


def _pad(node: Node, network: Network, shapes: Shapes) -> None:
    mode = node.attributes.get("mode", b"constant").decode(errors="replace")
    if mode != "constant":
        raise node.refused(f"pads in the mode {mode!r}")
    value = node.attributes.get("value", 0.0)
    for index, what in ((1, "the padding"), (2, "the value"), (3, "the axes")):
        if node.input(index):
            given = network.constant(node.input(index))
            if given is None:
                raise node.refused(f"takes {what} from {node.input(index)!r}, which the graph computes")
            value = given.reshape(-1)[0] if index == 2 and given.size else value
    if value != 0:
        raise node.refused(f"pads with {value:g}")


def _slice(node: Node, network: Network, shapes: Shapes) -> None:
    for index in range(1, len(node.inputs)):
        if node.input(index) and network.constant(node.input(index)) is None:
            raise node.refused(f"takes its bounds from {node.input(index)!r}, which the graph computes")


RULES: Mapping[str, Rule] = {
    "Add": add,
    "Cast": _cast,
    "Clip": _clip,
    "Div": _div,
    "Max": _bound,
    "Min": _bound,
    "Mul": _mul,
    "Pad": _pad,
    "Slice": _slice,
    "Sub": add,
    "Sum": _sum,
}
