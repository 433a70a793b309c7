"""The DORY dialect (Quantlab front end): opset 10, decimal tensor names, integer attributes, golden text files.

The front end matches operators by type and order and reads the attributes as fields of its own nodes, so the
comments below name the rule behind everything that plain ONNX would not need.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.modules.integer import (
    IntegerAdd,
    IntegerConv2d,
    IntegerGlobalAvgPool2d,
    IntegerLinear,
    Shift,
)
from dianaq_quant.modules.structure import MaxPool2d

OPSET = 10
"""The last opset in which Clip's bounds are attributes, which is where DORY reads them."""

IR_VERSION = 5
"""File format version of opset 10's time."""

CODE_BYTES = 32_000
"""Bytes assumed for the generated code itself, beside weights and input: DORY asks for an upper bound, and no figure
is published. Generated layer code is a few kB per network."""

_ADD_NEUTRAL = {
    f"{side}_{key}": value
    for side in ("in1", "in2", "out")
    for key, value in (("mul", 1), ("add", 0), ("shift", 0), ("n_levels", 256), ("rq", 0))
}
"""An addition without requantisation of its own: the following Mul-Div-Floor-Clip does that."""


@dataclass
class _Writer:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: list[onnx.TensorProto] = field(default_factory=list)
    shapes: list[onnx.ValueInfoProto] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> str:
        """A node; outputs are counted, as DORY compares tensor names as numbers."""
        output = str(len(self.nodes) + 1)
        # DORY takes a pool for a global one by the word in its name.
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{op}_{output}", **attributes))
        self.shapes.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, *shape]))
        return output

    def constant(self, name: str, value: np.ndarray | Tensor | float) -> str:
        self.initialisers.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    def parameters(self, weight: Tensor, bias: Tensor) -> tuple[str, str]:
        """Weight and bias of the next node. DORY tells them apart by these words, which a layer's name may hold."""
        label = f"layer{len(self.nodes) + 1}"
        return self.constant(f"{label}.weight", weight), self.constant(f"{label}.bias", bias)

    def requantise(self, source: str, shape: Sequence[int], shift: Shift) -> str:
        """`Mul(0-d 1.0) -> Div(2^n) -> Floor -> Clip{min, max, out_bits}`."""
        label = f"requant{source}"
        source = self.add("Mul", [source, self.constant(f"{label}.mul", 1.0)], shape)
        source = self.add("Div", [source, self.constant(f"{label}.div", 2.0**shift.shift)], shape)
        source = self.add("Floor", [source], shape)
        lo, hi = float(shift.qrange.lo), float(shift.qrange.hi)
        return self.add("Clip", [source], shape, min=lo, max=hi, out_bits=8)


@dataclass(frozen=True)
class DoryModel:
    """The written model, where each layer's integers are, and DORY's fused layers in their order."""

    proto: onnx.ModelProto
    tensors: dict[str, str]
    fused: tuple[str, ...]
    ranges: dict[str, tuple[int, int]]


def build_dory(network: IntegerNetwork) -> DoryModel:
    """The network in DORY's dialect: integers in, integers out, batch 1, no quantiser at either end."""
    writer = _Writer()
    tensors = {"input": "0"}
    fused = []
    ranges: dict[str, tuple[int, int]] = {}
    for layer in network.layers:
        tensors[layer.name] = _write(writer, layer, [tensors[name] for name in layer.inputs])
        shift = getattr(layer.module, "shift", None)
        if isinstance(shift, Shift):
            ranges[tensors[layer.name]] = (shift.qrange.lo, shift.qrange.hi)
        if not _is_reshape(layer):
            fused.append(layer.name)
    graph = helper.make_graph(
        writer.nodes,
        "dianaq_dory",
        [helper.make_tensor_value_info("0", TensorProto.FLOAT, [1, *network.input_shape])],
        [writer.shapes.pop()],
        writer.initialisers,
        value_info=writer.shapes,
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dianaq"
    )
    return DoryModel(proto, tensors, tuple(fused), ranges)


def _is_reshape(layer: Layer) -> bool:
    return not isinstance(layer.module, IntegerConv2d | IntegerLinear | IntegerAdd | IntegerGlobalAvgPool2d | MaxPool2d)


def _write(writer: _Writer, layer: Layer, inputs: list[str]) -> str:
    module, shape = layer.module, layer.shape
    if isinstance(module, IntegerConv2d):
        source = _conv(writer, layer, module, inputs)
        return writer.requantise(source, shape, module.shift)
    if isinstance(module, IntegerLinear):
        # Stored (C_in, C_out) with transB = 0: DORY transposes a square transB = 1 matrix silently.
        weight, bias = writer.parameters(module.weight.t().contiguous(), module.bias)
        source = writer.add("Gemm", [*inputs, weight, bias], shape, transB=0, weight_bits=8, bias_bits=32)
        return writer.requantise(source, shape, module.shift)
    if isinstance(module, IntegerAdd):
        signed = int(module.shift.qrange.lo < 0)
        source = writer.add("Add", inputs, shape, **_ADD_NEUTRAL, add_bits=32, out_signed=signed, weight_bits=8)
        return writer.requantise(source, shape, module.shift)
    if isinstance(module, IntegerGlobalAvgPool2d):
        source = writer.add("GlobalAveragePool", inputs, shape, weight_bits=8)
        return writer.add("Floor", [source], shape)
    if isinstance(module, MaxPool2d):
        return writer.add(
            "MaxPool",
            inputs,
            shape,
            kernel_shape=module.kernel,
            strides=module.stride,
            pads=module.pads,
            weight_bits=8,
        )
    return writer.add("Flatten", inputs, shape, axis=1)


def _conv(writer: _Writer, layer: Layer, module: IntegerConv2d, inputs: list[str]) -> str:
    """All geometry explicit: DORY has no defaults. `weight_bits` 8 selects the digital core."""
    weight, bias = writer.parameters(module.weight, module.bias)
    geometry = module.geometry
    return writer.add(
        "Conv",
        [*inputs, weight, bias],
        layer.shape,
        kernel_shape=list(module.weight.shape[2:]),
        strides=geometry.stride,
        pads=geometry.pads,
        dilations=geometry.dilation,
        group=geometry.groups,
        weight_bits=8,
        bias_bits=32,
    )


def without_annotations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without DORY's extra attributes, which onnxruntime refuses."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        known = onnx.defs.get_schema(node.op_type, OPSET).attributes
        kept = [a for a in node.attribute if a.name in known]
        del node.attribute[:]
        node.attribute.extend(kept)
    return plain


def export_dory(network: IntegerNetwork, folder: Path, golden: dict[str, Tensor]) -> DoryModel:
    """Write `model.onnx`, `dory.json`, `input.txt` and `out_layer<i>.txt`, one per fused layer in DORY's order.

    Args:
        folder: created; must not exist.
        golden: integers of every layer and of `"input"`, for one sample (batch 1).
    """
    model = build_dory(network)
    folder.mkdir(parents=True)
    onnx.save(model.proto, str(folder / "model.onnx"))
    weights = sum(t.ByteSize() // 4 for t in model.proto.graph.initializer)
    entrance = golden["input"]
    config = {
        "BNRelu_bits": 32,
        "onnx_file": "model.onnx",
        "code reserved space": CODE_BYTES + weights + entrance.numel(),
        "n_inputs": 1,
        "input_bits": 8,
        "input_signed": True,
    }
    (folder / "dory.json").write_text(json.dumps(config, indent=2) + "\n")
    # DORY reads the input as bytes; layer outputs it masks itself.
    _write_text(folder / "input.txt", "input", (int(v) & 0xFF for v in entrance.flatten().tolist()))
    for index, name in enumerate(model.fused):
        values = (int(v) for v in golden[name].flatten().tolist())
        _write_text(folder / f"out_layer{index}.txt", name, values)
    return model


def _write_text(path: Path, name: str, values: Iterable[int]) -> None:
    path.write_text(f"# {name}\n" + "".join(f"{v},\n" for v in values))
