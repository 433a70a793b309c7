"""A parsed ONNX graph with what the checks look up again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection.naming import node_names
from dianaq.inspection.operators import SUPPORTED_OPERATORS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dianaq.inspection.activations import Activations

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One node: its unique name, its operator, the names of its tensors, its attributes as Python values.

    The operator is that of the default ONNX domain, or has its domain in front: `com.microsoft.Gelu`.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def input(self, index: int) -> str:
        """Name of an input; empty when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def refused(self, what: str) -> UnsupportedOperator:
        """The error for a node that is used in a way the chip has no counterpart for."""
        supported = SUPPORTED_OPERATORS[self.operator]
        return UnsupportedOperator(
            f"node {self.name!r}: {self.operator} {what}; supported: {supported}", param=self.name
        )


@dataclass(frozen=True)
class Network:
    """A graph whose operators are all known. `constants` are initialisers and outputs of Constant nodes.

    `activations` are those that no core computes; `own` names the operators that installed packages bring.
    """

    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, onnx.TensorProto]
    input: onnx.ValueInfoProto
    output: onnx.ValueInfoProto
    activations: Activations
    own: frozenset[str] = frozenset()

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Values of a constant tensor, looked up through Identity nodes; None for an activation."""
        while tensor in self._copies:
            tensor = self._copies[tensor]
        return values(self.constants[tensor]) if tensor in self.constants else None

    @cached_property
    def _copies(self) -> dict[str, str]:
        return {node.outputs[0]: node.inputs[0] for node in self.nodes if node.operator == "Identity"}


Shapes = Mapping[str, Shape]
"""By a tensor's name, the batch included."""

Rule = Callable[[Node, Network, Shapes], None]
"""Refuses a node that is used in a way that is not supported."""


def values(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The array that a tensor holds.

    Raises:
        InvalidModel: its data does not fill its shape.
    """
    try:
        array: NDArray[np.generic] = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InvalidModel(
            f"tensor {tensor.name!r} is damaged: its data does not fill its shape {list(tensor.dims)} ({error})",
            param=tensor.name,
        ) from None
    return array


def nodes_of(graph: onnx.GraphProto) -> tuple[Node, ...]:
    """The nodes of a graph, in its order."""
    return tuple(
        Node(
            name,
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}",
            tuple(node.input),
            tuple(node.output),
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
        )
        for name, node in zip(node_names(graph), graph.node, strict=True)
    )
