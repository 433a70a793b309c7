"""The DORY dialect (Quantlab front end): opset 10, decimal tensor names, integer attributes, golden text files.

The front end matches operators by type and order and reads the attributes as fields of its own nodes, so the
comments below name the rule behind everything that plain ONNX would not need.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from dianaq.schemas.ranges import QRange
from dianaq_quant.export.golden import write_text
from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.modules.integer import (
    IntegerAdd,
    IntegerAnalogConv2d,
    IntegerConv2d,
    IntegerGlobalAvgPool2d,
    IntegerLinear,
    Shift,
)
from dianaq_quant.modules.structure import Flatten, MaxPool2d
from dianaq_quant.targets.diana import ADC

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
    converters: dict[str, IntegerAnalogConv2d] = field(default_factory=dict)

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
        return self.shift(source, shape, 2.0**shift.shift, shift.qrange, label)

    def shift(self, source: str, shape: Sequence[int], divisor: float, qrange: QRange, label: str) -> str:
        """`Div -> Floor -> Clip{min, max, out_bits}`."""
        source = self.add("Div", [source, self.constant(f"{label}.div", divisor)], shape)
        source = self.add("Floor", [source], shape)
        return self.add("Clip", [source], shape, min=float(qrange.lo), max=float(qrange.hi), out_bits=8)


@dataclass(frozen=True)
class DoryModel:
    """The written model, where each layer's integers are, and DORY's fused layers in their order.

    `originals` are the user's layers by the tensors that nodes give: names here are numbers, as DORY wants them.
    `converters` are the analog layers by the tensor of their accumulator, on which the converter would act: DORY's
    front end has no word for it.
    """

    proto: onnx.ModelProto
    tensors: dict[str, str]
    fused: tuple[str, ...]
    ranges: dict[str, tuple[int, int]]
    converters: dict[str, IntegerAnalogConv2d]
    originals: dict[str, str]
    parts: dict[str, str]
    """The layer (`Layer.whole`) that each node is a part of; nodes of neither end."""


def build_dory(network: IntegerNetwork) -> DoryModel:
    """The network in DORY's dialect: integers in, integers out, batch 1, no quantiser at either end."""
    writer = _Writer()
    tensors = {"input": "0"}
    fused = []
    ranges: dict[str, tuple[int, int]] = {}
    originals: dict[str, str] = {}
    parts: dict[str, str] = {}
    for layer in network.layers:
        before = len(writer.nodes)
        tensors[layer.name] = _write(writer, layer, [tensors[name] for name in layer.inputs])
        originals |= {node.output[0]: layer.original for node in writer.nodes[before:]}
        parts |= {node.name: layer.whole for node in writer.nodes[before:]}
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
    return DoryModel(proto, tensors, tuple(fused), ranges, writer.converters, originals, parts)


def _is_reshape(layer: Layer) -> bool:
    return isinstance(layer.module, Flatten)


def _write(writer: _Writer, layer: Layer, inputs: list[str]) -> str:
    module, shape = layer.module, layer.shape
    if isinstance(module, IntegerConv2d):
        weight, bias = writer.parameters(module.weight, module.bias)
        source = _conv(writer, layer, module, [*inputs, weight, bias], weight_bits=8, bias_bits=32)
        return writer.requantise(source, shape, module.shift)
    if isinstance(module, IntegerAnalogConv2d):
        return _analog(writer, layer, module, inputs)
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


def _conv(
    writer: _Writer,
    layer: Layer,
    module: IntegerConv2d | IntegerAnalogConv2d,
    inputs: list[str],
    **attributes: int,
) -> str:
    """All geometry explicit: DORY has no defaults. `weight_bits` selects the core: 8 is digital, 2 analog."""
    geometry = module.geometry
    return writer.add(
        "Conv",
        inputs,
        layer.shape,
        kernel_shape=list(module.weight.shape[2:]),
        strides=geometry.stride,
        pads=geometry.pads,
        dilations=geometry.dilation,
        group=geometry.groups,
        **attributes,
    )


def _analog(writer: _Writer, layer: Layer, module: IntegerAnalogConv2d, inputs: list[str]) -> str:
    """`Conv(no bias) -> Mul(C,1,1) -> Add(C,1,1) -> Div -> Floor -> Clip`.

    The converter's gain g goes into the other constants: `(acc k + l g) >> (n + log2 g)` is what its rounding and
    saturation act on. Neither they nor row tiles can be expressed.
    """
    weight = writer.constant(f"layer{len(writer.nodes) + 1}.weight", module.weight)
    source = _conv(writer, layer, module, [*inputs, weight], weight_bits=2)
    writer.converters[source] = module
    label, columns = f"requant{source}", (-1, 1, 1)
    factor = writer.constant(f"{label}.mul", module.k.reshape(columns))
    offset = writer.constant(f"{label}.add", (module.l * module.gain).reshape(columns))
    source = writer.add("Mul", [source, factor], layer.shape)
    source = writer.add("Add", [source, offset], layer.shape)
    return writer.shift(source, layer.shape, 2.0**module.shift.shift * module.gain, module.shift.qrange, label)


def with_converters(model: DoryModel) -> onnx.ModelProto:
    """A copy without DORY's attributes in which every analog layer has its converter: what the chip will compute.

    `Conv -> Div(g) -> Floor -> Clip(-32, 31) -> Mul(g)`, per row tile and summed, in place of each `Conv` of 2 bits.
    """
    plain = without_annotations(model.proto)
    nodes = list(plain.graph.node)
    del plain.graph.node[:]
    weights = {t.name: t for t in plain.graph.initializer}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim[1:]] for v in plain.graph.value_info}
    for node in nodes:
        module = model.converters.get(node.output[0])
        if module is None:
            plain.graph.node.append(node)
        else:
            weight = weights[node.input[1]]
            nodes_of = _converted(node, module, shapes[node.output[0]], weight, plain.graph.initializer)
            plain.graph.node.extend(nodes_of)
    return plain


def _converted(
    node: onnx.NodeProto,
    module: IntegerAnalogConv2d,
    shape: Sequence[int],
    weight: onnx.TensorProto,
    initialisers: Any,
) -> list[onnx.NodeProto]:
    """The nodes that stand for an analog layer's convolution with its converter; the weight is the file's own."""
    result, tiles = node.output[0], module.tiles
    conv = onnx.NodeProto()
    conv.CopyFrom(node)
    conv.output[0] = f"{result}/acc"
    before = []
    if tiles.count > 1:
        missing = tiles.count * tiles.channels - module.weight.shape[1]
        values = F.pad(torch.from_numpy(numpy_helper.to_array(weight).copy()), (0, 0, 0, 0, 0, missing))
        initialisers.append(numpy_helper.from_array(tiles.grouped(values).numpy(), f"{result}/tiled"))
        pads = [0, 0, 0, 0, 0, missing, 0, 0]
        before = [helper.make_node("Pad", [conv.input[0]], [f"{result}/padded"], mode="constant", pads=pads)]
        conv.input[0], conv.input[1] = f"{result}/padded", f"{result}/tiled"
        next(a for a in conv.attribute if a.name == "group").i = tiles.count
    initialisers.append(numpy_helper.from_array(np.asarray(module.gain, np.float32), f"{result}/gain"))
    after = [
        helper.make_node("Div", [f"{result}/acc", f"{result}/gain"], [f"{result}/v"]),
        helper.make_node("Floor", [f"{result}/v"], [f"{result}/floor"]),
        helper.make_node("Clip", [f"{result}/floor"], [f"{result}/a"], min=float(ADC.lo), max=float(ADC.hi)),
        helper.make_node("Mul", [f"{result}/a", f"{result}/gain"], [result if tiles.count == 1 else f"{result}/each"]),
    ]
    if tiles.count > 1:
        initialisers.append(numpy_helper.from_array(np.array([1, tiles.count, *shape]), f"{result}/shape"))
        after += [
            helper.make_node("Reshape", [f"{result}/each", f"{result}/shape"], [f"{result}/tiles"]),
            helper.make_node("ReduceSum", [f"{result}/tiles"], [result], axes=[1], keepdims=0),
        ]
    return [*before, conv, *after]


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
    write_text(folder, model.fused, golden)
    return model
