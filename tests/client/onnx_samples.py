"""Small ONNX models for the tests: one that is fine, and pieces to spoil it with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = ("N", 3, 8, 8)


def tensor(name: str, *shape: int, value: float = 0.5, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full(shape, value, dtype), name)


def node(
    operator: str, inputs: Sequence[str], output: str, name: str | None = None, **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [output], name=output if name is None else name, **attributes)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    initialisers: Sequence[onnx.TensorProto],
    *,
    input_shape: Sequence[int | str | None] | None = SHAPE,
    output_shape: Sequence[int | str | None] | None = ("N", 10),
    input_type: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model whose input is `x` and whose output is the last node's."""
    graph = helper.make_graph(
        nodes,
        "sample",
        [helper.make_tensor_value_info("x", input_type, input_shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, output_shape)],
        list(initialisers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def classifier(**options: Any) -> onnx.ModelProto:
    """Conv, BatchNorm, Relu, GlobalAveragePool, Flatten, Gemm: (N, 3, 8, 8) -> (N, 10)."""
    nodes = [
        node("Conv", ["x", "conv.weight"], "conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["conv", "scale", "bias", "mean", "var"], "bn"),
        node("Relu", ["bn"], "relu"),
        node("GlobalAveragePool", ["relu"], "pool"),
        node("Flatten", ["pool"], "flat"),
        node("Gemm", ["flat", "fc.weight", "fc.bias"], "fc", transB=1),
    ]
    norm = [tensor(name, 4) for name in ("scale", "bias", "mean", "var")]
    weights = [tensor("conv.weight", 4, 3, 3, 3), *norm, tensor("fc.weight", 10, 4), tensor("fc.bias", 10)]
    return make_model(nodes, weights, **options)


def with_head(*head: onnx.NodeProto, weights: Sequence[onnx.TensorProto] = (), opset: int = 17) -> onnx.ModelProto:
    """Nodes on an image `x` (N, 3, 8, 8), whatever their output's shape is."""
    return make_model(head, weights, output_shape=None, opset=opset)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path
