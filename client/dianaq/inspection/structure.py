"""Checks of an ONNX graph as a graph: its ends, its names, its order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import onnx

from dianaq.errors import InvalidModel
from dianaq.inspection.constants import type_name
from dianaq.inspection.network import Node

MAX_NODES = 5_000
"""ResNet-152 has about 500 nodes; each costs graph rewriting time in every stage of a job."""

MAX_INPUT_RANK = 5
"""Batch, channels and up to three more dimensions."""


def graph_ends(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """The one input and the one output of a graph. Initialisers listed among the inputs are no inputs.

    Raises:
        InvalidModel: there are none or several, one is not float32, or the input's shape is missing or
            dynamic beyond the batch.
    """
    initialised = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initialised]
    for what, ends in (("input", inputs), ("output", list(graph.output))):
        if len(ends) != 1:
            names = ", ".join(repr(end.name) for end in ends) or "none"
            raise InvalidModel(f"the graph must have exactly one {what}, this one has {len(ends)}: {names}")
        _check_float32(what, ends[0])
    _check_input_shape(inputs[0])
    return inputs[0], graph.output[0]


def _check_float32(what: str, end: onnx.ValueInfoProto) -> None:
    if not end.type.HasField("tensor_type"):
        raise InvalidModel(f"{what} {end.name!r} must be a float32 tensor", param=end.name)
    elem_type = end.type.tensor_type.elem_type
    if elem_type != onnx.TensorProto.FLOAT:
        raise InvalidModel(f"{what} {end.name!r} is {type_name(elem_type)}; only float32 is supported", param=end.name)


def _check_input_shape(end: onnx.ValueInfoProto) -> None:
    def refuse(why: str) -> NoReturn:
        raise InvalidModel(f"input {end.name!r} {why}", param=end.name)

    if not end.type.tensor_type.HasField("shape"):
        refuse("has no shape; it must be (batch, ...) with fixed dimensions after the batch")
    dims = end.type.tensor_type.shape.dim
    shown = "(" + ", ".join(d.dim_param or (str(d.dim_value) if d.dim_value else "?") for d in dims) + ")"
    if not 2 <= len(dims) <= MAX_INPUT_RANK:
        refuse(f"has the shape {shown}; it must be (batch, ...) with 2 to {MAX_INPUT_RANK} dimensions")
    if dims[0].HasField("dim_value") and dims[0].dim_value < 1:
        refuse(f"has the shape {shown}: the batch dimension must be positive or dynamic")
    for axis, dim in enumerate(dims[1:], start=1):
        if not dim.HasField("dim_value") or dim.dim_value < 1:
            refuse(f"has the shape {shown}: dimension {axis} is dynamic; only the batch, the first one, may be")


def check_wiring(
    nodes: tuple[Node, ...], constants: dict[str, onnx.TensorProto], sources: Iterable[str], sinks: Iterable[str]
) -> None:
    """Refuse graphs in which a tensor comes from nowhere or from two places.

    Raises:
        InvalidModel: names the tensor and the node.
    """
    if not nodes:
        raise InvalidModel("the graph has no nodes")
    if len(nodes) > MAX_NODES:
        raise InvalidModel(f"the graph has {len(nodes):,} nodes; at most {MAX_NODES:,} are accepted")
    from_nodes = {name for node in nodes for name in node.outputs if name}
    initialisers = constants.keys() - {n.outputs[0] for n in nodes if n.operator == "Constant"}
    known = {*sources, *initialisers}
    for node in nodes:
        for name in filter(None, node.inputs):
            if name not in known:
                later = name in from_nodes
                why = "which only a later node produces" if later else "which nothing produces"
                raise InvalidModel(f"node {node.name!r} ({node.operator}) takes {name!r}, {why}", param=node.name)
        for name in filter(None, node.outputs):
            if name in known:
                raise InvalidModel(f"tensor {name!r} is produced twice, again by {node.name!r}", param=node.name)
            known.add(name)
    for sink in sinks:
        if sink not in from_nodes:
            raise InvalidModel(f"output {sink!r} is not produced by any node", param=sink)
