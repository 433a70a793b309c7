"""Shapes of all tensors of an ONNX graph, and a bound on how large they may be."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from dianaq.errors import InvalidModel
from dianaq.inspection.network import Network, Shape

MAX_TENSOR_VALUES = 2**22
"""Per sample. Five times the largest activation of MobileNetV1 at 224 x 224 (112 * 112 * 64 values), which is
itself more than the chip's memory holds; a batch of 128 such tensors takes 2 GiB."""


def infer_shapes(model: onnx.ModelProto, network: Network) -> dict[str, Shape]:
    """The shape of every tensor that has one, the batch included. The declared output shape is not trusted.

    Raises:
        InvalidModel: the shapes contradict each other, or a tensor is too large; names the node or tensor.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output[0].type.tensor_type.ClearField("shape")
    _keep_shapes(probe, network)
    try:
        inferred = onnx.shape_inference.infer_shapes(probe, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise InvalidModel(f"the shapes in the graph do not fit together: {_first_cause(error)}") from None
    shapes: dict[str, Shape] = {name: tuple(t.dims) for name, t in network.constants.items()}
    for value in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    _refuse_large(network, shapes)
    return shapes


def _keep_shapes(probe: onnx.ModelProto, network: Network) -> None:
    """Let operators that installed packages bring, which nothing is known of, keep the shape of what they read first.

    It is so for activations; what another one really gives is known to the import.
    """
    for node, known in zip(probe.graph.node, network.nodes, strict=True):
        if known.operator in network.own:
            node.CopyFrom(onnx.helper.make_node("Identity", [known.inputs[0]], [known.outputs[0]], name=known.name))


def _first_cause(error: Exception) -> str:
    """The part of onnx's message that names the node and what is wrong with it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if len(lines) == 1 else " ".join(lines[:2])
    for noise in ("[ShapeInferenceError]", "[TypeInferenceError]", "Inference error(s):"):
        text = text.replace(noise, "")
    return " ".join(text.split()).strip(" :")[:400]


def _refuse_large(network: Network, shapes: Mapping[str, Shape]) -> None:
    read = {network.output.name, *(name for node in network.nodes for name in node.inputs)}
    for node in network.nodes:
        for name in filter(None, node.outputs):
            if name in network.constants:
                continue
            if name not in shapes and name not in read:
                continue  # such as the mask of a Dropout, of which exporters of old opsets write the name
            if name not in shapes:
                raise InvalidModel(
                    f"node {node.name!r} ({node.operator}): the shape of its output cannot be determined",
                    param=node.name,
                )
            if 0 in shapes[name] or math.prod(shapes[name][1:]) > MAX_TENSOR_VALUES:
                raise InvalidModel(
                    f"node {node.name!r} ({node.operator}) produces the shape {shapes[name][1:]} per sample; "
                    f"accepted are 1 to {MAX_TENSOR_VALUES:,} values",
                    param=node.name,
                )
