"""A network that no job takes as a whole, but maybe in part: what is to be known of it, and why it is refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import onnx

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection.constants import constants_of
from dianaq.inspection.model import inspect_parsed
from dianaq.inspection.network import nodes_of, values
from dianaq.inspection.operators import LINEAR_OPERATORS, SUPPORTED_OPERATORS
from dianaq.inspection.simplify import opset_of
from dianaq.inspection.structure import check_wiring, graph_ends
from dianaq.inspection.tensors import Survey, survey
from dianaq.schemas.resources import ModelInfo, TensorInfo

HINT = (
    "a part of the network may do: part {from, to} (--from TENSOR, --to TENSOR), with tensors that `dianaq inspect` "
    "lists"
)


def inspect_whole(model: onnx.ModelProto, own: Collection[str] = ()) -> ModelInfo:
    """What a parsed file holds. Where its network is refused for what the chip lacks, `refusal` says so.

    Args:
        own: as for `inspect_model`.

    Raises:
        InvalidModel: the file is damaged, unsafe to read, or too large: no part of it can be used.
    """
    try:
        return inspect_parsed(model, own)
    except InvalidModel as error:
        helps = not _fits_in_one(model)
        if not helps and not isinstance(error, UnsupportedOperator):
            raise
        found = survey(model)
        _check_sound(found.model)
        return _described(found, error, helps or _is_of_its_operator(found, error))


def _fits_in_one(model: onnx.ModelProto) -> bool:
    """Whether the graph has one input and one output as a network must."""
    try:
        graph_ends(model.graph)
    except InvalidModel:
        return False
    return True


def _check_sound(model: onnx.ModelProto) -> None:
    """Refuse graphs that do not hang together, and constants that are no numbers.

    Raises:
        InvalidModel: names the tensor or node.
    """
    graph = model.graph
    nodes = nodes_of(graph)
    constants = constants_of(graph, nodes)
    inputs = [value.name for value in graph.input if value.name not in constants]
    check_wiring(nodes, constants, inputs, [value.name for value in graph.output])
    for name, tensor in constants.items():
        # An infinity may be a bound or a mask of what is left out.
        if tensor.data_type == onnx.TensorProto.FLOAT and np.isnan(values(tensor)).any():
            raise InvalidModel(f"weight {name!r} holds nan", param=name)


def _is_of_its_operator(found: Survey, error: InvalidModel) -> bool:
    """Whether it is the operator of the node that is refused, and not the way in which it is used."""
    return any(node.name == error.param and node.operator not in SUPPORTED_OPERATORS for node in found.computed())


def _described(found: Survey, error: InvalidModel, helps: bool) -> ModelInfo:
    if helps:
        error.detail = f"{error.detail}; {HINT}"
    graph, nodes = found.model.graph, found.computed()
    read = {name for node in nodes for name in node.inputs}
    return ModelInfo(
        opset=opset_of(found.model),
        input=_end(found, found.inputs),
        output=_end(found, {value.name: value for value in graph.output}),
        operators=dict(sorted(Counter(node.operator for node in nodes).items())),
        layers=tuple(node.name for node in nodes if node.operator in LINEAR_OPERATORS),
        parameters=sum(math.prod(array.shape) for name, array in found.constants.items() if name in read),
        refusal=error.problem(),
    )


def _end(found: Survey, ends: Mapping[str, onnx.ValueInfoProto]) -> TensorInfo:
    name = next(iter(ends), "")
    return TensorInfo(name=name, shape=tuple(d or 0 for d in (found.dims(name) or ())[1:]))
