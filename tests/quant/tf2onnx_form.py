"""Small networks in the form in which tf2onnx writes those of Keras: NHWC outside, NCHW in between, names with / and :.

Written node by node with `onnx.helper`, so that nobody needs TensorFlow. What is typical of its files: the input is
transposed (reshaped, where it has one channel); a convolution's weights are constants in NCHW, with BatchNorm in them
or beside them as Mul and Add; padding SAME is explicit and asymmetric; a global mean is a ReduceMean over axes, and a
flatten is of NHWC; dense layers are MatMul and Add; the batch is called `unk__1`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
CLASSES = 4


@dataclass
class Keras:
    """A file being written; the methods give names of tensors, in NCHW unless they say otherwise."""

    shape: tuple[int, ...]
    opset: int = 13
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}:0"], name=name, **attributes))
        return f"{name}:0"

    def transpose(self, name: str, x: str, perm: Sequence[int]) -> str:
        return self.node("Transpose", name, x, perm=perm)

    def weights(self, *shape: int) -> np.ndarray:
        return self.random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)

    def conv(
        self, name: str, x: str, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, group: int = 1
    ) -> str:
        """Of padding SAME: of an even map in steps of two the odd row and column are at the end."""
        total = max(kernel - stride, 0)
        low, high = total // 2, total - total // 2
        weights = self.constant(
            f"model/{name}/Conv2D/ReadVariableOp:0", self.weights(outputs, inputs // group, kernel, kernel)
        )
        bias = self.constant(f"model/{name}/BiasAdd/ReadVariableOp:0", self.random.normal(0, 0.1, outputs))
        settings = {
            "strides": [stride] * 2,
            "kernel_shape": [kernel] * 2,
            "pads": [low, low, high, high],
            "group": group,
        }
        return self.node("Conv", f"model/{name}/BiasAdd", x, weights, bias, dilations=[1, 1], **settings)

    def norm(self, name: str, x: str, channels: int, rank: int = 4) -> str:
        """BatchNorm as it stands beside a layer: a factor and a summand per channel, in the layout there."""
        shape = (1, channels, 1, 1) if rank == 4 else (channels,)
        factor = self.constant(f"model/{name}/batchnorm/mul:0", self.random.uniform(0.5, 1.5, shape))
        summand = self.constant(f"model/{name}/batchnorm/sub:0", self.random.normal(0, 0.3, shape))
        x = self.node("Mul", f"model/{name}/batchnorm/mul_1", x, factor)
        return self.node("Add", f"model/{name}/batchnorm/add_1", x, summand)

    def relu(self, name: str, x: str) -> str:
        return self.node("Relu", f"model/{name}/Relu", x)

    def relu6(self, name: str, x: str) -> str:
        low, high = self.constant(f"{name}_zero__7", 0.0), self.constant(f"{name}_six__8", 6.0)
        return self.node("Clip", f"model/{name}/Relu6", x, low, high)

    def dense(self, name: str, x: str, inputs: int, outputs: int) -> str:
        weights = self.constant(f"model/{name}/MatMul/ReadVariableOp:0", self.weights(outputs, inputs).T)
        x = self.node("MatMul", f"model/{name}/MatMul", x, weights)
        bias = self.constant(f"model/{name}/BiasAdd/ReadVariableOp:0", self.random.normal(0, 0.1, outputs))
        return self.node("Add", f"model/{name}/BiasAdd", x, bias)

    def mean(self, name: str, x: str, axes: Sequence[int]) -> str:
        """A global mean; axes are an attribute until opset 17."""
        if self.opset < 18:
            return self.node("ReduceMean", f"model/{name}/Mean", x, axes=axes, keepdims=0)
        return self.node("ReduceMean", f"model/{name}/Mean", x, self.constant("axes__9", axes, np.int64), keepdims=0)

    def flatten(self, name: str, x: str, values: int) -> str:
        return self.node(
            "Reshape", f"model/{name}/Reshape", x, self.constant("const_fold_opt__23", [-1, values], np.int64)
        )

    def softmax(self, x: str) -> str:
        return (
            self.node("Softmax", "model/dense/Softmax", x, axis=-1)
            if self.opset >= 13
            else self.node("Softmax", "model/dense/Softmax", x, axis=1)
        )

    def model(self, output: str, shape: Sequence[int]) -> onnx.ModelProto:
        assert self.nodes[-1].output[0] == output
        self.nodes[-1].output[0] = "dense"
        graph = helper.make_graph(
            self.nodes,
            "tf2onnx",
            [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["unk__1", *self.shape])],
            [helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["unk__2", *shape])],
            self.constants,
        )
        domains = [helper.make_opsetid("", self.opset), helper.make_opsetid("ai.onnx.ml", 2)]
        return helper.make_model(graph, producer_name="tf2onnx", opset_imports=domains, ir_version=7)


def images(k: Keras) -> onnx.ModelProto:
    """BatchNorm in the weights, a residual addition, an average pool of the whole map."""
    x = k.transpose("model/conv2d/BiasAdd__6", "input_1", TO_NCHW)
    x = k.relu("activation", k.conv("conv2d", x, 3, 8))
    y = k.relu("activation_1", k.conv("conv2d_1", x, 8, 16, stride=2))
    y = k.conv("conv2d_2", y, 16, 16)
    x = k.relu("add", k.node("Add", "model/add/add", k.conv("conv2d_3", x, 8, 16, 1, stride=2), y))
    x = k.node("AveragePool", "model/average_pooling2d/AvgPool", x, kernel_shape=[4, 4], strides=[4, 4])
    return k.model(k.softmax(k.dense("dense", k.flatten("flatten", x, 16), 16, CLASSES)), (CLASSES,))


def keywords(k: Keras) -> onnx.ModelProto:
    """One channel: the input is reshaped instead of transposed. Depthwise separable; BatchNorm as Mul and Add."""
    x = k.node(
        "Reshape", "model/conv2d/BiasAdd__410", "input_1", k.constant("new_shape__507", [-1, 1, 12, 6], np.int64)
    )
    x = k.relu("activation", k.norm("batch_normalization", k.conv("conv2d", x, 1, 8, stride=2), 8))
    x = k.relu6("re_lu", k.norm("batch_normalization_1", k.conv("depthwise", x, 8, 8, group=8), 8))
    x = k.relu6("re_lu_1", k.norm("batch_normalization_2", k.conv("pointwise", x, 8, 12, 1), 12))
    return k.model(k.dense("dense", k.mean("global_average_pooling2d", x, (2, 3)), 12, CLASSES), (CLASSES,))


def flattened_maps(k: Keras) -> onnx.ModelProto:
    """A flatten of a map of several pixels: in NHWC, so that the order of the dense layer's weights is that one."""
    x = k.transpose("model/conv2d/BiasAdd__6", "input_1", TO_NCHW)
    x = k.relu("activation", k.conv("conv2d", x, 3, 8))
    x = k.node("MaxPool", "model/max_pooling2d/MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = k.transpose("model/max_pooling2d/MaxPool__17", x, TO_NHWC)
    x = k.relu("dense", k.dense("dense", k.flatten("flatten", x, 8 * 4 * 4), 8 * 4 * 4, 12))
    return k.model(k.softmax(k.dense("dense_1", x, 12, CLASSES)), (CLASSES,))


def transposed_around(k: Keras) -> onnx.ModelProto:
    """Without tf2onnx's optimiser: every layer has its Transposes around it, and BatchNorm is in NHWC."""

    def inside(name: str, x: str, layer: Callable[[str], str]) -> str:
        x = layer(k.transpose(f"{name}__1", x, TO_NCHW))
        return k.transpose(f"{name}__2", x, TO_NHWC)

    def norm(name: str, x: str, channels: int) -> str:
        return k.norm(name, x, channels, rank=1)

    x = inside("conv2d", "input_1", lambda x: k.conv("conv2d", x, 3, 8))
    x = k.relu("activation", norm("batch_normalization", x, 8))
    x = inside("pool", x, lambda x: k.node("MaxPool", "model/pool/MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    y = inside("conv2d_1", x, lambda x: k.conv("conv2d_1", x, 8, 8))
    x = k.relu("add", k.node("Add", "model/add/add", x, norm("batch_normalization_1", y, 8)))
    x = k.mean("global_average_pooling2d", x, (1, 2))
    return k.model(k.dense("dense", x, 8, CLASSES), (CLASSES,))


def vectors(k: Keras) -> onnx.ModelProto:
    """An autoencoder: dense layers, BatchNorm as Mul and Add."""
    x = "input_1"
    for number, (inputs, outputs) in enumerate(((16, 12), (12, 6), (6, 12))):
        x = k.dense(f"dense_{number}", x, inputs, outputs)
        x = k.relu(f"activation_{number}", k.norm(f"batch_normalization_{number}", x, outputs, rank=2))
    return k.model(k.dense("dense_9", x, 12, 16), (16,))


def rescaled(k: Keras) -> onnx.ModelProto:
    """A Rescaling layer in front, and a global maximum."""
    x = k.node("Mul", "model/rescaling/mul", "input_1", k.constant("model/rescaling/Cast/x:0", 1 / 127.5))
    x = k.node("Add", "model/rescaling/add", x, k.constant("model/rescaling/Cast_1/x:0", -1.0))
    x = k.transpose("model/conv2d/BiasAdd__6", x, TO_NCHW)
    x = k.relu("activation", k.conv("conv2d", x, 3, 8, stride=2))
    x = k.node("GlobalMaxPool", "model/global_max_pooling2d/Max", x)
    x = k.node("Squeeze", "model/global_max_pooling2d/Max__5", x, k.constant("axes__5", [2, 3], np.int64))
    return k.model(k.dense("dense", x, 8, CLASSES), (CLASSES,))


def temporal(k: Keras) -> onnx.ModelProto:
    """Conv1D, which Keras computes as Conv2D of height 1: ExpandDims, Conv2D, Squeeze."""
    axis = k.constant("ExpandDims/dim:0", [1], np.int64)
    x = k.node("Unsqueeze", "model/conv1d/Conv1D/ExpandDims", "input_1", axis)
    x = k.transpose("model/conv1d/Conv1D__8", x, TO_NCHW)
    weights = k.constant("model/conv1d/Conv1D/ExpandDims_1:0", k.weights(8, 3, 1, 5))
    bias = k.constant("model/conv1d/BiasAdd/ReadVariableOp:0", k.random.normal(0, 0.1, 8))
    x = k.node("Conv", "model/conv1d/Conv1D", x, weights, bias, kernel_shape=[1, 5], pads=[0, 2, 0, 2])
    x = k.transpose("model/conv1d/Conv1D__9", x, TO_NHWC)
    x = k.relu("activation", k.node("Squeeze", "model/conv1d/Conv1D/Squeeze", x, axis))
    return k.model(k.dense("dense", k.mean("global_average_pooling1d", x, (1,)), 8, CLASSES), (CLASSES,))


@dataclass(frozen=True)
class Form:
    """How a network is written, the shape of its samples, the opsets it is written for, and what the import drops."""

    write: Callable[[Keras], onnx.ModelProto]
    shape: tuple[int, ...]
    opsets: tuple[int, ...] = (11, 13, 15, 18)
    softmax: bool = False


FORMS = {
    "images": Form(images, (8, 8, 3), softmax=True),
    "keywords": Form(keywords, (12, 6, 1)),
    "flattened_maps": Form(flattened_maps, (8, 8, 3), softmax=True),
    "transposed_around": Form(transposed_around, (8, 8, 3)),
    "vectors": Form(vectors, (16,)),
    "rescaled": Form(rescaled, (8, 8, 3), (13, 15, 18)),
    "temporal": Form(temporal, (20, 3), (13, 15, 18)),
}
