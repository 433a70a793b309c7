"""The ONNX operators that DIANA networks are made of, and what of each can be brought onto the chip.

One list for inspection, for the importer (whose table of handlers is tested against it) and for messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SUPPORTED_OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        "Add": "two activations of one shape, or a constant bias after MatMul",
        "AveragePool": "2-d",
        "BatchNormalization": "in inference mode",
        "Clip": "as ReLU or ReLU6: min 0, and max 6 or none",
        "Constant": "a float32 tensor, or the integers of a shape or of axes",
        "Conv": "2-d with constant weights; depthwise, grouped and asymmetrically padded ones too",
        "Dropout": "in inference mode",
        "Flatten": "everything but the batch",
        "Gemm": "constant weights, alpha = beta = 1, transA = 0",
        "GlobalAveragePool": "2-d",
        "Identity": "anywhere",
        "LogSoftmax": "over the classes, as the last operator",
        "MatMul": "an activation by a constant matrix",
        "MaxPool": "2-d, without indices",
        "ReduceMean": "over the two spatial dimensions",
        "Relu": "anywhere",
        "Reshape": "as a flatten: to (batch, everything else)",
        "Softmax": "over the classes, as the last operator",
        "Squeeze": "as a flatten: to (batch, everything else)",
    }
)
"""Operator of the default ONNX domain -> the form in which it is supported."""

LINEAR_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that become layers of the chip and that `mapping.layers` may name."""

INTEGER_INPUTS: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "Dropout": frozenset({1, 2}),  # the ratio, unused in inference, may have any float type; the mode
        "ReduceMean": frozenset({1}),  # axes, since opset 18
        "Reshape": frozenset({1}),  # shape
        "Squeeze": frozenset({1}),  # axes, since opset 13
    }
)
"""Inputs that hold shapes, axes or modes; every other input of every operator is a float32 tensor."""

OLDEST_OPSET = 7
"""Before opset 7, elementwise operators broadcast by an attribute, and no exporter in use writes those models."""
