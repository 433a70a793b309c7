"""In which layout a network of a file has its input, and what makes of it that of the quantised network.

`editors.lower.LayInput` of the library does the same to the imported network; a test compares.
"""

from __future__ import annotations

import math

from dianaq.inspection.arrangement import Shape, followed, inverse, permuted, reshaped, unchanged
from dianaq.inspection.layout_rules import kept_axes, node_axes
from dianaq.inspection.network import Network, Node, Shapes
from dianaq.inspection.operators import ACTIVATION_OPERATORS
from dianaq.schemas.resources import Arrangement

MOVING = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that only move values."""

POINTWISE = frozenset(
    {"Add", "Cast", "Clip", "Div", "Dropout", "Identity", "Max", "Min", "Mul", "Neg", "Relu", "Sub"}
    | ACTIVATION_OPERATORS.keys()
)
"""Operators that compute value by value; of two inputs, both arranged alike, or one of them a constant."""

WINDOWED = frozenset({"AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
"""Operators that take (N, C, L) as well as (N, C, H, W); the first is read as (N, C, 1, L)."""

REDUCING = frozenset({"ReduceMax", "ReduceMean"})


def input_arrangement(network: Network, shapes: Shapes) -> Arrangement | None:
    """What makes of the network's input a map (C, H, W) or a vector; None where it is one, or nothing can.

    It is the first thing that is done to the input, or to what follows from it value by value, and that ends in one.
    """
    shape = shapes[network.input.name][1:]
    reached: dict[str, Arrangement] = {network.input.name: unchanged(shape)}
    for node in network.nodes:
        computed = [name for name in node.inputs if name and network.constant(name) is None]
        if not computed or any(name not in reached for name in computed):
            continue
        made = reached[computed[0]]
        if any(reached[name] != made for name in computed):
            continue
        if node.operator in MOVING:
            moved = _moved(node, shape, made, shapes)
            if moved is not None:
                reached[node.outputs[0]] = moved
        elif (found := _read_as(node, shape, made, network)) is not None:
            return found
        elif node.operator in POINTWISE or node.operator == "Pad":
            reached[node.outputs[0]] = made  # of what is padded: the padding is moved behind what rearranges it
        elif node.operator in WINDOWED | REDUCING:
            return None  # it is read as the map it is
    return None


def _moved(node: Node, shape: Shape, made: Arrangement, shapes: Shapes) -> Arrangement | None:
    if node.operator != "Transpose":
        after = shapes[node.outputs[0]][1:]
        return reshaped(shape, made, after) if math.prod(after) == math.prod(shape) else None
    rank = len(made.shape) + 1
    return permuted(shape, made, [axis - 1 for axis in node.attributes.get("perm", range(rank))[1:]])


def _read_as(node: Node, shape: Shape, made: Arrangement, network: Network) -> Arrangement | None:
    """The arrangement in which a node reads the input, if it is one that the network is to have."""
    given = made.shape
    if node.operator in WINDOWED and len(given) == 2:
        made = reshaped(shape, made, (given[0], 1, given[1]))
    elif node.operator in REDUCING and (first := _channels_first(given, node, network)) is not None:
        both = followed(shape, made, first)
        if both is None:
            return None
        made = both
    wanted = (1, 3) if len(shape) not in (1, 3) else (3,)
    if made == unchanged(shape) or len(made.shape) not in wanted or inverse(shape, made) is None:
        return None
    return made


def _channels_first(given: Shape, node: Node, network: Network) -> Arrangement | None:
    """What a reduction over space reads; None where it is no such reduction."""
    kept = kept_axes((1, *given), node_axes(node, network))
    if kept[:1] != [0] or len(kept) != 2:
        return None
    gone = [axis for axis in range(len(given)) if axis != kept[1] - 1]
    made = permuted(given, unchanged(given), [kept[1] - 1, *gone])
    size = (1, *(given[axis] for axis in gone))[-2:]
    return None if made is None or len(gone) > 2 else reshaped(given, made, (given[kept[1] - 1], *size))
