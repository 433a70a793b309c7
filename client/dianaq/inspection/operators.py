"""The ONNX operators that DIANA networks are made of, and what of each can be brought onto the chip.

One list for inspection, for the importer (whose table of handlers is tested against it) and for messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dianaq.schemas.substitution import Activation

ACTIVATION_OPERATORS: Mapping[str, Activation] = MappingProxyType(
    {
        "Celu": "celu",
        "Elu": "elu",
        "Gelu": "gelu",
        "HardSigmoid": "hardsigmoid",
        "HardSwish": "hardswish",
        "LeakyRelu": "leaky_relu",
        "Mish": "mish",
        "PRelu": "prelu",
        "Selu": "selu",
        "Sigmoid": "sigmoid",
        "Softplus": "softplus",
        "Swish": "silu",
        "Tanh": "tanh",
    }
)
"""Operators that are activations which no core computes: a job has to substitute them."""

_SUBSTITUTED = "where the job substitutes it"

SUPPORTED_OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        "Add": "two activations of one shape, or a constant: one value, or one per channel",
        "AveragePool": "1-d and 2-d",
        "BatchNormalization": "in inference mode",
        "Cast": "to float32",
        "Clip": "as ReLU or ReLU6: min 0, and a positive max or none",
        "Constant": "a float32 tensor, or the integers of a shape or of axes",
        "Conv": "1-d and 2-d with constant weights; depthwise, grouped and asymmetrically padded ones too",
        "Div": "an activation by a constant: one value, or one per channel",
        "Dropout": "in inference mode",
        "Flatten": "everything but the batch",
        "Gemm": "constant weights, transA = 0",
        "GlobalAveragePool": "1-d and 2-d",
        "GlobalMaxPool": "1-d and 2-d",
        "Identity": "anywhere",
        "LogSoftmax": "over the classes, as the last operator",
        "MatMul": "an activation by a constant matrix",
        "Max": "an activation and the constant 0, alone or with a Min",
        "MaxPool": "1-d and 2-d, without indices",
        "Min": "an activation and a positive constant, next to a Relu or Max",
        "Mul": "an activation by a constant: one value, or one per channel",
        "Neg": "anywhere",
        "Pad": "a map or line with zeros",
        "ReduceMax": "over all dimensions but the batch and the channels",
        "ReduceMean": "over all dimensions but the batch and the channels",
        "Relu": "anywhere",
        "Reshape": "with the batch in its place, where the whole network can be brought into the layout (N, C, H, W)",
        "Slice": "every n-th row and column of a map",
        "Softmax": "over the classes, as the last operator",
        "Squeeze": "of dimensions of size 1, not the batch",
        "Sub": "two activations of one shape, or a constant: one value, or one per channel",
        "Sum": "of two tensors, as Add",
        "Transpose": "with the batch in its place, where the whole network can be brought into the layout (N, C, H, W)",
        "Unsqueeze": "behind the batch",
        **dict.fromkeys(ACTIVATION_OPERATORS, _SUBSTITUTED),
        "Sigmoid": f"{_SUBSTITUTED}, or as the last operator of a classifier",
    }
)
"""Operator of the default ONNX domain -> the form in which it is supported."""

LINEAR_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that become layers of the chip and that `mapping.layers` may name."""

INTEGER_INPUTS: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "Dropout": frozenset({1, 2}),  # the ratio, unused in inference, may have any float type; the mode
        "Pad": frozenset({1, 3}),  # padding, since opset 11; axes, since opset 18
        "ReduceMax": frozenset({1}),  # axes, since opset 18
        "ReduceMean": frozenset({1}),  # axes, since opset 18
        "Reshape": frozenset({1}),  # shape
        "Slice": frozenset({1, 2, 3, 4}),  # starts, ends, axes, steps, since opset 10
        "Squeeze": frozenset({1}),  # axes, since opset 13
        "Unsqueeze": frozenset({1}),  # axes, since opset 13
    }
)
"""Inputs that hold shapes, axes or modes; every other input of every operator is a float32 tensor."""

OLDEST_OPSET = 7
"""Before opset 7, elementwise operators broadcast by an attribute, and no exporter in use writes those models."""
