"""Inspection of an ONNX file: everything that can be known to be wrong with it before a job runs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from dianaq.errors import InvalidModel
from dianaq.inspection.activations import activations_of, final_of
from dianaq.inspection.constants import check_constants, constants_of
from dianaq.inspection.foreign import EXPORT
from dianaq.inspection.formats import file_format
from dianaq.inspection.network import Network, nodes_of
from dianaq.inspection.node_rules import check_node
from dianaq.inspection.operators import LINEAR_OPERATORS
from dianaq.inspection.own_layout import input_arrangement
from dianaq.inspection.own_operators import registered_operators
from dianaq.inspection.part import cut
from dianaq.inspection.shapes import infer_shapes
from dianaq.inspection.simplify import opset_of, simplified
from dianaq.inspection.structure import graph_ends
from dianaq.inspection.training_mode import check_evaluation
from dianaq.inspection.unsupported import check_kind, check_operators
from dianaq.schemas.resources import ModelInfo, TensorInfo
from dianaq.schemas.spec import NetworkPart


def inspect_model(
    path: str | os.PathLike[str], own: Collection[str] = (), part: NetworkPart | None = None
) -> ModelInfo:
    """What an ONNX file holds, once everything about it that can be checked without running it was checked.

    Args:
        path: the file. No other file is opened, whatever the model refers to.
        own: operators, `domain.OpType`, that the caller has handlers for, beside those of installed packages.
        part: what of it to look at; None for the whole network.

    Raises:
        InvalidModel: names the tensor, node or property at fault and what would be accepted.
        UnsupportedOperator: names the node, its operator and what is supported.
        InvalidSpec: the file has no such part, see `dianaq.inspection.part.cut`.
    """
    return inspect_parsed(parse_model(path, part), own)


def inspect_parsed(model: onnx.ModelProto, own: Collection[str] = ()) -> ModelInfo:
    """What a parsed file (or part of one) holds; `own` and errors as of `inspect_model`."""
    model = _simplified(model)
    network = _network(model, registered_operators() | {*own})
    _check_standard(model)
    check_evaluation(network)
    shapes = infer_shapes(model, network)
    found = network.activations
    for node in network.nodes:
        if node.operator not in network.own and node.name not in found.inner | found.kinds.keys():
            check_node(node, network, shapes)
    graph = model.graph
    return ModelInfo(
        opset=network.opset,
        input=TensorInfo(name=network.input.name, shape=shapes[network.input.name][1:]),
        arrangement=input_arrangement(network, shapes),
        output=TensorInfo(name=network.output.name, shape=shapes[network.output.name][1:]),
        operators=dict(sorted(Counter(node.operator for node in network.nodes).items())),
        layers=tuple(node.name for node in network.nodes if node.operator in LINEAR_OPERATORS),
        nodes=tuple(node.name for node in network.nodes if node.operator not in ("Identity", "Dropout")),
        parameters=sum(math.prod(tensor.dims) for tensor in graph.initializer),
        substitutable=dict(found.kinds),
        final=final_of(found, network.nodes, network.output.name),
    )


def parse_model(path: str | os.PathLike[str], part: NetworkPart | None = None) -> onnx.ModelProto:
    """The model in a file, parsed and nothing more; or a part of it.

    Raises:
        InvalidModel: the file is missing, empty, too large, truncated or not ONNX.
        InvalidSpec: it has no such part, see `dianaq.inspection.part.cut`.
    """
    format = file_format(path)
    if format != "onnx":
        raise InvalidModel(
            f"the file holds weights ({format}), not a network; name its architecture in the zoo, or export it: "
            f"{EXPORT} makes ONNX"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except DecodeError:
        raise InvalidModel("the file is not ONNX, or it is truncated: it cannot be parsed") from None
    if not model.HasField("graph") or not model.opset_import:
        raise InvalidModel("the file is not ONNX, or it is truncated: it holds no graph or no opset")
    return model if part is None else cut(model, part)


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """The simplified model; one that cannot be is called by what it is, rather than by what follows from that.

    The states of a recurrent layer make further outputs, and tokens are integers.
    """
    try:
        return simplified(model)
    except InvalidModel:
        check_kind(model)
        raise


def _network(model: onnx.ModelProto, own: frozenset[str]) -> Network:
    graph = model.graph
    nodes = nodes_of(graph)
    constants = constants_of(graph, nodes)
    source, sink = graph_ends(graph)
    found = activations_of(nodes, constants, sink.name, own)
    check_operators(nodes, constants.keys(), found, own)
    check_constants(nodes, constants)
    return Network(opset_of(model), nodes, constants, source, sink, found, own)


def _check_standard(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidModel(f"the model breaks the ONNX standard: {' '.join(str(error).split())[:400]}") from None
