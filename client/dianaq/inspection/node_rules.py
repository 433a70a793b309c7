"""What the attributes and shapes of a node say about whether the chip can compute it.

One rule per operator, by its name; an operator without a rule is taken as it is. The importer refuses the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dianaq.errors import InvalidModel
from dianaq.inspection import arithmetic_rules, layout_rules
from dianaq.inspection.network import Network, Node, Rule, Shape, Shapes


def check_node(node: Node, network: Network, shapes: Shapes) -> None:
    """Refuse a node that is used in a way that is not supported.

    Raises:
        UnsupportedOperator: names the node, what is unusual about it, and what is supported.
        InvalidModel: the node cannot be computed at all.
    """
    rule = RULES.get(node.operator)
    if rule is not None:
        rule(node, network, shapes)


def _weights(node: Node, network: Network, index: int) -> np.ndarray:
    weights = network.constant(node.input(index))
    if weights is None:
        raise node.refused(f"takes input {node.input(index)!r}, which the graph computes, where a constant must be")
    return weights


def _spatial(node: Node, shapes: Shapes) -> Shape:
    """Height and width of the node's input (batch, channels, height, width), or the length of (batch, channels, L)."""
    shape = shapes[node.inputs[0]]
    if len(shape) not in (3, 4):
        raise node.refused(
            f"is applied to the shape {shape[1:]} instead of (channels, height, width) or (channels, length)"
        )
    return shape[2:]


def _check_pads(node: Node, kernel: Shape) -> None:
    pads = node.attributes.get("pads", [0] * 2 * len(kernel))
    dilations = node.attributes.get("dilations", [1] * len(kernel))
    extent = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    if any(pad < 0 for pad in pads) or any(pad >= reach for pad, reach in zip(pads, extent * 2, strict=True)):
        raise node.refused(f"has the pads {pads} around a kernel that spans {extent}; they must be smaller")
    auto_pad = node.attributes.get("auto_pad", b"NOTSET").decode(errors="replace")
    if auto_pad not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise node.refused(f"has auto_pad {auto_pad!r}; accepted are SAME_UPPER, SAME_LOWER, VALID")


def _conv(node: Node, network: Network, shapes: Shapes) -> None:
    weights = _weights(node, network, 1)
    if weights.ndim not in (3, 4):
        raise node.refused(f"has {weights.ndim - 2}-d kernels")
    if len(_spatial(node, shapes)) != weights.ndim - 2:
        raise node.refused(f"has {weights.ndim - 2}-d kernels and an input of shape {shapes[node.inputs[0]][1:]}")
    kernel = tuple(weights.shape[2:])
    declared = tuple(node.attributes.get("kernel_shape", kernel))
    if declared != kernel:
        raise InvalidModel(
            f"node {node.name!r}: kernel_shape is {declared} and its weights have {kernel}", param=node.name
        )
    _check_pads(node, kernel)
    group = node.attributes.get("group", 1)
    channels, outputs = shapes[node.inputs[0]][1], weights.shape[0]
    if group < 1 or channels != weights.shape[1] * group or outputs % group:
        raise InvalidModel(
            f"node {node.name!r}: weights of shape {weights.shape} in {group} group(s) do not fit an input of "
            f"{channels} channels",
            param=node.name,
        )
    if node.input(2) and _weights(node, network, 2).shape != (outputs,):
        raise InvalidModel(f"node {node.name!r}: the bias must have the shape ({outputs},)", param=node.name)


def _batch_norm(node: Node, network: Network, shapes: Shapes) -> None:
    channels = shapes[node.inputs[0]][1]
    for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1):
        shape = _weights(node, network, index).shape
        if shape != (channels,):
            raise InvalidModel(
                f"node {node.name!r}: its {what} has the shape {shape} instead of ({channels},)", param=node.name
            )
    if (_weights(node, network, 4) < 0).any():
        raise InvalidModel(f"node {node.name!r}: its variance {node.input(4)!r} is negative", param=node.name)


def _pool(node: Node, network: Network, shapes: Shapes) -> None:
    _spatial(node, shapes)
    kernel = tuple(node.attributes["kernel_shape"])
    _check_pads(node, kernel)
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refused(f"also gives the indices {node.outputs[1]!r}")


def _global_pool(node: Node, network: Network, shapes: Shapes) -> None:
    _spatial(node, shapes)


def _gemm(node: Node, network: Network, shapes: Shapes) -> None:
    if node.attributes.get("transA", 0):
        raise node.refused("has transA = 1")
    _weights(node, network, 1)
    if node.input(2):
        _weights(node, network, 2)


def _matmul(node: Node, network: Network, shapes: Shapes) -> None:
    if network.constant(node.input(0)) is not None:
        raise node.refused("multiplies a constant by an activation; the transposed product, constant second, works")
    weights = _weights(node, network, 1)
    if weights.ndim != 2:
        raise node.refused(f"multiplies by a constant of {weights.ndim} dimensions")


def _softmax(node: Node, network: Network, shapes: Shapes) -> None:
    if node.outputs[0] != network.output.name:
        raise node.refused("is not the last operator")
    shape = shapes[node.inputs[0]]
    axis = node.attributes.get("axis", 1 if network.opset < 13 else -1)
    if len(shape) != 2 or axis % 2 != 1:
        raise node.refused(f"is applied over axis {axis} of the shape {shape[1:]}")


RULES: Mapping[str, Rule] = {
    **layout_rules.RULES,
    **arithmetic_rules.RULES,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "ReduceMax": layout_rules.reduction,
    "ReduceMean": layout_rules.reduction,
    "Softmax": _softmax,
}
