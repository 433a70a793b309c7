"""Every tensor that a graph computes from its inputs, with its shape, whether the chip could compute it or not.

What `dianaq inspect` lists, and what a part of a network is cut from. Nothing here refuses an operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TypeProto

from dianaq.errors import InvalidModel
from dianaq.inspection.constants import constants_of
from dianaq.inspection.folding import Folding
from dianaq.inspection.functions import written_out
from dianaq.inspection.naming import node_names
from dianaq.inspection.network import Node, nodes_of, values
from dianaq.inspection.simplify import DEFAULT, DYNAMIC_BATCH, opset_of

Dims = tuple[int | None, ...]
"""A shape in which None stands for what is not fixed."""


@dataclass(frozen=True)
class ListedNode:
    """A node and a tensor that it computes; the shape has the batch, and None for what is not fixed or not known."""

    name: str
    operator: str
    output: str
    shape: Dims | None


@dataclass(frozen=True)
class Survey:
    """A graph without its shape arithmetic, as far as that could be computed.

    Attributes:
        model: functions written out, every node named.
        inputs: the graph's inputs without initialisers, their batch fixed.
        batch: the batch to which a dynamic one was fixed; None where no input has one.
        nodes: what is left once constants are computed, in the graph's order; they read `constants`.
        types: of inputs and of what the nodes compute, as far as they are known.
    """

    model: onnx.ModelProto
    inputs: Mapping[str, onnx.ValueInfoProto]
    batch: int | None
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, NDArray[Any]]
    types: Mapping[str, TypeProto]

    def dims(self, tensor: str) -> Dims | None:
        """A tensor's shape, the batch included; None if nothing is known of it."""
        found = self.types.get(tensor)
        if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else None for d in found.tensor_type.shape.dim)

    def computed(self) -> tuple[Node, ...]:
        """The nodes that compute something from the inputs."""
        active = set(self.inputs)
        found = []
        for node in nodes_of(onnx.GraphProto(node=self.nodes)):
            if active.intersection(node.inputs):
                active.update(filter(None, node.outputs))
                found.append(node)
        return tuple(found)

    def listing(self) -> list[ListedNode]:
        """Every tensor that is computed from the inputs, in the graph's order."""
        return [
            ListedNode(node.name, node.operator, output, self.dims(output))
            for node in self.computed()
            for output in filter(None, node.outputs)
        ]


def survey(model: onnx.ModelProto) -> Survey:
    """Look at every tensor of a model. What cannot be told of one stays unknown.

    Raises:
        InvalidModel: functions in a circle, an unknown opset, or constants that are damaged, too many or elsewhere.
    """
    opset = opset_of(model)
    model = written_out(model)
    graph = model.graph
    for node, name in zip(graph.node, node_names(graph), strict=True):
        node.name = name
    constants = {name: values(tensor) for name, tensor in constants_of(graph, nodes_of(graph)).items()}
    inputs = [value for value in graph.input if value.name not in constants]
    batch = next((size for value in inputs if (size := _fix_batch(value.type, DYNAMIC_BATCH)) is not None), None)
    for value in inputs:
        _fix_batch(value.type, batch or DYNAMIC_BATCH)
    hints = {value.name: value.type for value in (*graph.value_info, *graph.output)}
    folding = Folding(opset, constants, {value.name: value.type for value in inputs})
    left = []
    for node in graph.node:
        if node.op_type == "Constant" or _folds(folding, node):
            continue
        left.append(node)
        for name in node.output:
            if name in hints and not _is_static(folding.types.get(name)):
                _fix_batch(hints[name], batch or DYNAMIC_BATCH)
                if _is_static(hints[name]) or name not in folding.types:
                    folding.types[name] = hints[name]
    return Survey(model, {value.name: value for value in inputs}, batch, tuple(left), folding.constants, folding.types)


def _folds(folding: Folding, node: onnx.NodeProto) -> bool:
    if node.domain not in DEFAULT:
        for index, name in enumerate(node.input):
            node.input[index] = folding.renamed.get(name, name)
        return False
    try:
        return folding.take(node)
    except InvalidModel:  # whoever wants what it computes is told when that is looked at as a network
        return False


def _fix_batch(found: TypeProto, batch: int) -> int | None:
    """Fix a dynamic first dimension; what it is then, None if there is none."""
    if not found.HasField("tensor_type") or not found.tensor_type.shape.dim:
        return None
    first = found.tensor_type.shape.dim[0]
    if not first.HasField("dim_value"):
        first.dim_value = batch
    return int(first.dim_value)


def _is_static(found: TypeProto | None) -> bool:
    if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
        return False
    return all(d.HasField("dim_value") for d in found.tensor_type.shape.dim)
