"""Small ONNX models for tests, built node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model being built: its name, and its shape without the batch."""

    name: str
    shape: Shape


@dataclass
class ModelBuilder:
    """Builds a model with one input `x`; the last tensor is the output."""

    input_shape: Shape
    opset: int = 13
    seed: int = 0
    batch: int | str = "N"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    @property
    def input(self) -> Tensor:
        return Tensor("x", self.input_shape)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(
        self, op: str, inputs: Sequence[Tensor | str], shape: Shape, name: str | None = None, **attributes: Any
    ) -> Tensor:
        output = f"t{len(self.nodes)}"
        names = [i.name if isinstance(i, Tensor) else i for i in inputs]
        label = f"{op.lower()}{len(self.nodes)}" if name is None else name
        self.nodes.append(helper.make_node(op, names, [output], name=label, **attributes))
        return Tensor(output, shape)

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        stride: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: tuple[int, int] = (1, 1),
        group: int = 1,
        bias: bool = True,
        auto_pad: str | None = None,
        scale: float = 1.0,
        bias_scale: float | None = None,
        dead: Sequence[int] = (),
        name: str | None = None,
        weight: np.ndarray | None = None,
    ) -> Tensor:
        fan_in = x.shape[0] // group * kernel[0] * kernel[1]
        if weight is None:
            weight = self.random.normal(0, np.sqrt(2 / fan_in), (channels, x.shape[0] // group, *kernel)) * scale
            weight[list(dead)] = 0
        inputs: list[Tensor | str] = [x, self.constant(weight)]
        if bias:
            inputs.append(
                self.constant(self.random.normal(0, 0.3, channels) * (scale if bias_scale is None else bias_scale))
            )
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "group": group, "dilations": dilation}
        height, width = x.shape[1:]
        extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            attributes["auto_pad"] = auto_pad
            size = (-(-height // stride[0]), -(-width // stride[1]))
        else:
            if auto_pad is not None:
                attributes["auto_pad"], pads = auto_pad, (0, 0, 0, 0)
            else:
                attributes["pads"] = pads
            size = (
                (height + pads[0] + pads[2] - extent[0]) // stride[0] + 1,
                (width + pads[1] + pads[3] - extent[1]) // stride[1] + 1,
            )
        return self.node("Conv", inputs, (channels, *size), name, **attributes)

    def batch_norm(self, x: Tensor, *, gain: float = 1.0, dead: Sequence[int] = (), name: str | None = None) -> Tensor:
        channels = x.shape[0]
        gamma = self.random.uniform(0.5, 1.5, channels) * gain
        gamma[list(dead)] = 0
        values = [
            gamma,
            self.random.normal(0, 0.2, channels),
            self.random.normal(0, 0.2, channels),
            self.random.uniform(0.3, 2, channels),
        ]
        return self.node("BatchNormalization", [x, *map(self.constant, values)], x.shape, name)

    def relu(self, x: Tensor, name: str | None = None) -> Tensor:
        return self.node("Relu", [x], x.shape, name)

    def relu6(self, x: Tensor, name: str | None = None) -> Tensor:
        if self.opset < 11:
            return self.node("Clip", [x], x.shape, name, min=0.0, max=6.0)
        return self.node("Clip", [x, self.constant(0.0), self.constant(6.0)], x.shape, name)

    def add(self, a: Tensor, b: Tensor, name: str | None = None) -> Tensor:
        return self.node("Add", [a, b], a.shape, name)

    def pool(
        self,
        op: str,
        x: Tensor,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        name: str | None = None,
        **attributes: Any,
    ) -> Tensor:
        size = tuple((x.shape[1 + i] + pads[i] + pads[i + 2] - kernel[i]) // stride[i] + 1 for i in (0, 1))
        shape = (x.shape[0], *size)
        return self.node(op, [x], shape, name, kernel_shape=kernel, strides=stride, pads=pads, **attributes)

    def global_pool(self, x: Tensor, name: str | None = None) -> Tensor:
        return self.node("GlobalAveragePool", [x], (x.shape[0], 1, 1), name)

    def reduce_mean(self, x: Tensor, *, keepdims: bool, axes: Sequence[int] = (2, 3)) -> Tensor:
        shape = (x.shape[0], 1, 1) if keepdims else x.shape[:1]
        if self.opset >= 18:
            return self.node("ReduceMean", [x, self.constant(axes, np.int64)], shape, keepdims=int(keepdims))
        return self.node("ReduceMean", [x], shape, axes=list(axes), keepdims=int(keepdims))

    def flatten(self, x: Tensor, name: str | None = None) -> Tensor:
        return self.node("Flatten", [x], (int(np.prod(x.shape)),), name, axis=1)

    def reshape(self, x: Tensor, target: Sequence[int]) -> Tensor:
        return self.node("Reshape", [x, self.constant(target, np.int64)], (int(np.prod(x.shape)),))

    def squeeze(self, x: Tensor, axes: Sequence[int] = (2, 3)) -> Tensor:
        if self.opset >= 13:
            return self.node("Squeeze", [x, self.constant(axes, np.int64)], x.shape[:1])
        return self.node("Squeeze", [x], x.shape[:1], axes=list(axes))

    def gemm(
        self,
        x: Tensor,
        features: int,
        *,
        trans_b: int = 1,
        bias: bool = True,
        scale: float = 1.0,
        name: str | None = None,
        weight: np.ndarray | None = None,
    ) -> Tensor:
        """Fully connected; `weight` is (features, inputs) whatever the attribute says."""
        if weight is None:
            weight = self.random.normal(0, np.sqrt(2 / x.shape[0]), (features, x.shape[0])) * scale
        inputs: list[Tensor | str] = [x, self.constant(weight if trans_b else weight.T)]
        if bias or self.opset < 11:
            inputs.append(self.constant(self.random.normal(0, 0.3, features) * scale))
        return self.node("Gemm", inputs, (features,), name, transB=trans_b)

    def matmul(self, x: Tensor, features: int, *, scale: float = 1.0, name: str | None = None) -> Tensor:
        weight = self.random.normal(0, np.sqrt(2 / x.shape[0]), (x.shape[0], features)) * scale
        return self.node("MatMul", [x, self.constant(weight)], (features,), name)

    def bias(self, x: Tensor, *, first: bool = False, scale: float = 1.0) -> Tensor:
        constant = self.constant(self.random.normal(0, 0.3, x.shape[0]) * scale)
        return self.node("Add", [constant, x] if first else [x, constant], x.shape)

    def build(self, output: Tensor, *, check: bool = True) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, *self.input_shape])],
            [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [self.batch, *output.shape])],
            self.initialisers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        if check:
            onnx.checker.check_model(model, full_check=True)
        return model
