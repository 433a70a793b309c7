"""A graph as its exporter wrote it, without what only prepares constants: the form in which networks are looked at.

Exporters differ most in how they write shapes: `x.view(x.size(0), -1)` is one Reshape in one file, and in another nine
nodes that take the batch out of a shape and put it into the next.
"""

from __future__ import annotations

import math

import onnx
from onnx import numpy_helper

from dianaq.errors import InvalidModel
from dianaq.inspection.constants import MAX_PARAMETERS, constants_of
from dianaq.inspection.folding import Folding
from dianaq.inspection.functions import written_out
from dianaq.inspection.naming import node_names
from dianaq.inspection.network import nodes_of, values
from dianaq.inspection.operators import OLDEST_OPSET
from dianaq.inspection.reshapes import merge_reshapes
from dianaq.inspection.shapes import MAX_TENSOR_VALUES
from dianaq.inspection.structure import check_wiring, graph_ends

DYNAMIC_BATCH = 2
"""Stands for a dynamic batch. Not 1: operators that mix the samples of a batch would look like ones that do not."""


MAX_COMPUTED_BYTES = 4 * MAX_PARAMETERS
"""Of the constants that are left when everything is computed: as much as the largest model's weights in float32."""

DEFAULT = ("", "ai.onnx")
"""Names of the default ONNX domain."""


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model in which every node has its name, and constants and shapes are computed.

    Functions of the model itself are written out, a dynamic batch is `DYNAMIC_BATCH`, nodes that compute constants
    have become initialisers, and what nothing reads is gone. Names of tensors and of the nodes that are left stay.

    Raises:
        InvalidModel: the graph does not hang together, data are damaged or lie in another file, or a constant cannot be
            computed, or would be too large; names the tensor or node.
    """
    opset = opset_of(model)
    model = written_out(model)
    graph = model.graph
    for node, name in zip(graph.node, node_names(graph), strict=True):
        node.name = name
    constants = _checked(model)
    source, sink = graph_ends(graph)
    batch = source.type.tensor_type.shape.dim[0]
    if not batch.HasField("dim_value"):
        batch.dim_value = DYNAMIC_BATCH
    folding = Folding(opset, {name: values(tensor) for name, tensor in constants.items()}, {source.name: source.type})
    left = [n for n in graph.node if n.op_type != "Constant" and (n.domain not in DEFAULT or not folding.take(n))]
    if sink.name in folding.constants or sink.name in folding.renamed:
        raise InvalidModel(f"output {sink.name!r} is a constant: it does not follow from the input", param=sink.name)
    merge_reshapes(left, folding)
    kept = _needed(left, sink.name)
    read = {name for node in kept for name in node.input}
    computed = {name: folding.constants[name] for name in read & folding.constants.keys() - constants.keys()}
    taken = sum(array.nbytes for array in computed.values())
    if taken > MAX_COMPUTED_BYTES:
        raise InvalidModel(
            f"the constants that the graph computes take {taken:,} bytes; at most {MAX_COMPUTED_BYTES:,} are accepted"
        )
    constants |= {name: numpy_helper.from_array(array, name) for name, array in computed.items()}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.input[:], result.functions[:]
    result.graph.node.extend(kept)
    result.graph.input.append(source)
    # Before version 4 of the format every constant was among the inputs, where they no longer are.
    result.ir_version = max(result.ir_version, 4)
    for name in constants:
        if name in read:
            result.graph.initializer.add().CopyFrom(constants[name])
            result.graph.initializer[-1].name = name  # that in a Constant node has one of its own, or none
    return result


def _checked(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The constants of a model whose graph hangs together; see `simplified` for errors."""
    graph = model.graph
    nodes = nodes_of(graph)
    constants = constants_of(graph, nodes)
    source, sink = graph_ends(graph)
    check_wiring(nodes, constants, [source.name], [sink.name])
    if math.prod(d.dim_value for d in source.type.tensor_type.shape.dim[1:]) > MAX_TENSOR_VALUES:
        raise InvalidModel(f"input {source.name!r} has more than {MAX_TENSOR_VALUES:,} values", param=source.name)
    del graph.value_info[:]  # only hints, which shape inference replaces
    sink.type.tensor_type.ClearField("shape")
    sink.type.tensor_type.shape.SetInParent()  # a hint as well, which the standard wants to be there
    return constants


def _needed(nodes: list[onnx.NodeProto], sink: str) -> list[onnx.NodeProto]:
    """The nodes that an output follows from, in their order."""
    wanted, kept = {sink}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default ONNX domain that a model uses.

    Raises:
        InvalidModel: it uses none, or one that is not supported.
    """
    versions = [entry.version for entry in model.opset_import if entry.domain in DEFAULT]
    newest = int(onnx.defs.onnx_opset_version())
    if not versions:
        raise InvalidModel("the model imports no version of the default ONNX domain")
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise InvalidModel(f"the model uses opset {versions[0]}; supported are {OLDEST_OPSET} to {newest}")
    return int(versions[0])
