"""Both ends of an exported network, the only places where real numbers occur.

At the start of the file for HTVM a float input becomes integers, `Div(c) -> Floor`; at its end the integers become
real numbers again, `Div(1 / scale)`. The file for DORY has neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dianaq.errors import InvalidDataset, InvalidModel
from dianaq.executor.arithmetic import INT32, Integers
from dianaq.executor.operators import SHAPE_OPERATORS
from dianaq.inspection.network import Node

Constants = Mapping[str, NDArray[Any]]

LARGEST_FLOAT = np.float32(2**31 - 2**7)
"""The largest float32 that is an int32."""


@dataclass(frozen=True)
class Quantiser:
    """`floor(x / c)`: the one step that is computed in floating point, in float32 as onnxruntime computes it."""

    nodes: frozenset[str]
    """Names of the nodes that it stands for."""
    divisor: np.float32
    output: str
    """The tensor of integers that it gives, before they are clipped."""
    is_clipped: bool
    """Whether they are: nothing beyond int32 then matters."""

    def __call__(self, x: NDArray[Any]) -> Integers:
        """The integers of real inputs.

        Raises:
            InvalidDataset: an input is not a number, or beyond 32 bits in steps of c and not clipped.
        """
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite there, and clipped
            steps = np.floor(x.astype(np.float32) / self.divisor)
        if np.isnan(steps).any():
            raise InvalidDataset("the input holds values that are no numbers (NaN)")
        if not self.is_clipped and not (steps.min() >= INT32[0] and steps.max() <= LARGEST_FLOAT):
            raise InvalidDataset(f"the input is beyond 32 bits when divided by {self.divisor:g}, and is not clipped")
        integers: Integers = steps.clip(INT32[0], LARGEST_FLOAT).astype(np.int32)
        return integers


def find_quantiser(nodes: tuple[Node, ...], constants: Constants, source: str) -> Quantiser | None:
    """The quantiser that the network's input goes into, if that is where it goes.

    Raises:
        InvalidModel: a division by the input's scale without its `Floor`.
    """
    tensor, divisor = source, np.float32(1)
    found: list[str] = []
    while len(readers := [n for n in nodes if tensor in n.inputs]) == 1:
        (node,) = readers
        if node.operator == "Div" and node.inputs[0] == tensor and not found:
            divisor = _positive(node, constants)
        elif node.operator not in ("Floor", "Identity"):
            break
        found.append(node.name)
        tensor = node.outputs[0]
        if node.operator == "Floor":
            behind = {n.operator for n in nodes if tensor in n.inputs}
            return Quantiser(frozenset(found), divisor, tensor, bool(behind) and behind <= {"Max", "Min", "Clip"})
    if divisor != 1:
        raise InvalidModel(f"node {found[0]!r} (Div) divides the input, and no Floor follows it", param=found[0])
    return None


def find_exit(nodes: tuple[Node, ...], constants: Constants, sink: str) -> tuple[Node, float] | None:
    """The division that makes real numbers of the output's integers, and by what it divides."""
    producers = {n.outputs[0]: n for n in nodes}
    tensor = sink
    while tensor in producers:
        node = producers[tensor]
        if node.operator == "Div":
            return node, float(_positive(node, constants))
        if node.operator not in SHAPE_OPERATORS:
            return None
        tensor = node.inputs[0]
    return None


def _positive(node: Node, constants: Constants) -> np.float32:
    array = constants.get(node.input(1))
    if array is None or array.size != 1 or not 0 < array.item() < np.inf:
        shown = "no constant" if array is None else np.array2string(array.ravel()[:4])
        raise InvalidModel(
            f"node {node.name!r} (Div) divides by {shown}; accepted is a constant of one positive element",
            param=node.name,
        )
    return np.float32(array.item())
