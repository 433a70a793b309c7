"""Activations of an ONNX graph that no core computes: operators of their own, and those that a graph writes out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from dianaq.inspection.elementwise import ARITY, Operation, Written, recognised
from dianaq.inspection.network import Node, values
from dianaq.inspection.operators import ACTIVATION_OPERATORS
from dianaq.schemas.resources import FinalActivation
from dianaq.schemas.substitution import Activation

_ATTRIBUTES = frozenset({"alpha", "beta", "min", "max"})
"""Of element-wise operators; a node with another one (the broadcasting of old opsets) is not looked into."""


@dataclass(frozen=True)
class Activations:
    """What a job has to substitute.

    Args:
        kinds: by node; of a function that is written out, the node that gives its value.
        written: the functions that are written out, by that node.
        inner: nodes that are but a part of one.
    """

    kinds: Mapping[str, Activation]
    written: Mapping[str, Written]
    inner: frozenset[str]


def activations_of(
    nodes: Sequence[Node], constants: Mapping[str, onnx.TensorProto], sink: str, own: Collection[str] = ()
) -> Activations:
    """The activations of a graph that no core computes.

    Args:
        nodes: in the order in which they are computed.
        sink: the graph's output.
        own: operators that somebody has handlers for, whatever they are.

    Raises:
        InvalidModel: a constant is damaged.
    """
    uses = Counter([sink, *(name for node in nodes for name in node.inputs)])
    operations = list(_operations([node for node in nodes if node.operator not in own], constants))
    written = {found.operations[-1].name: found for found in recognised(operations, uses)}
    parts = {operation.name for found in written.values() for operation in found.operations}
    kinds: dict[str, Activation] = {}
    for node in nodes:
        if node.name in written:
            kinds[node.name] = written[node.name].kind
        elif node.operator in ACTIVATION_OPERATORS and node.name not in parts and node.operator not in own:
            kinds[node.name] = ACTIVATION_OPERATORS[node.operator]
    return Activations(kinds, written, frozenset(parts - written.keys()))


def _operations(nodes: Sequence[Node], constants: Mapping[str, onnx.TensorProto]) -> Iterator[Operation]:
    def operand(name: str) -> str | float | None:
        if name in constants and math.prod(constants[name].dims) == 1:
            return float(values(constants[name]).reshape(-1)[0])
        return name or None

    for node in nodes:
        usual = len(node.inputs) in ARITY.get(node.operator, ()) and len(node.outputs) == 1
        if usual and node.attributes.keys() <= _ATTRIBUTES:
            inputs = tuple(operand(name) for name in node.inputs)
            yield Operation(node.name, node.operator, inputs, node.outputs[0], dict(node.attributes))


def final_of(found: Activations, nodes: Sequence[Node], sink: str) -> FinalActivation | None:
    """The Sigmoid or Softmax that gives the network's output, if one does."""
    for node in nodes:
        if sink in node.outputs and node.operator in ("Softmax", "LogSoftmax"):
            return FinalActivation(node=node.name, kind="softmax", reads=node.inputs[0])
        if sink in node.outputs and found.kinds.get(node.name) == "sigmoid":
            reads = found.written[node.name].reads if node.name in found.written else node.inputs[0]
            return FinalActivation(node=node.name, reads=reads)
    return None
