"""The HTVM dialect: plain ONNX, integers in float32 tensors, requantisation as `Div -> Floor -> Max -> Min`.

HTVM recognises a layer by exactly this sequence of operators and rejects or miscompiles others; each function
below names the rule that it follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.modules.integer import (
    IntegerAdd,
    IntegerAnalogConv2d,
    IntegerConv2d,
    IntegerGlobalAvgPool2d,
    IntegerLinear,
    IntegerRelu,
    Shift,
)
from dianaq_quant.modules.structure import MaxPool2d
from dianaq_quant.targets.diana import ADC, INT8

OPSET = 13
"""One of the versions that HTVM's front end is known to take (10, 13, 17)."""

IR_VERSION = 8
"""File format version that goes with opsets up to 17, so that older readers accept the file."""


@dataclass
class _Writer:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray | Tensor | float, dtype: Any = np.float32) -> str:
        array = np.asarray(value, dtype=dtype)
        self.initialisers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def vector(self, value: float) -> str:
        """A constant of one element and rank 1: 0-d constants crash HTVM."""
        return self.constant(f"constant_{value:g}".replace("-", "minus_"), np.array([value]))

    def requantise(self, source: str, layer: str, divisor: float, lo: int, hi: int) -> str:
        """`Div(c) -> Floor -> Max(lo) -> Min(hi)`; the division is left out where c = 1, but not at the input."""
        if divisor != 1 or layer == "input":
            name = f"{layer}/divisor" if layer == "input" else ""
            constant = self.constant(name, np.array([divisor])) if name else self.vector(divisor)
            source = self.add("Div", [source, constant], f"{layer}/div")
        return self.clip(source, layer, lo, hi)

    def clip(self, source: str, layer: str, lo: int, hi: int) -> str:
        """`Floor -> Max(lo) -> Min(hi)`."""
        source = self.add("Floor", [source], f"{layer}/floor")
        source = self.add("Max", [source, self.vector(lo)], f"{layer}/max")
        source = self.add("Min", [source, self.vector(hi)], f"{layer}/min")
        self.ranges[source] = (lo, hi)
        return source


@dataclass(frozen=True)
class HtvmModel:
    """The written model: where each layer's integers are, the range that each of those tensors keeps, and which of the
    user's layers each tensor that a node gives belongs to."""

    proto: onnx.ModelProto
    tensors: dict[str, str]
    ranges: dict[str, tuple[int, int]]
    originals: dict[str, str]
    parts: dict[str, str]
    """The layer (`Layer.whole`) that each node is a part of; nodes of neither end."""


def build_htvm(network: IntegerNetwork) -> HtvmModel:
    """The network in HTVM's dialect: input `input` (1, ...) float32, output `output` float32, batch 1.

    Both hold integers where the network's interface says so.
    """
    writer = _Writer()
    bounds = (network.entrance.qrange.lo, network.entrance.qrange.hi)
    # HTVM wants a requantisation at the start, also of what is an integer already: by 1 then, which changes nothing.
    unit = network.entrance.scale if network.interface.input == "float" else 1.0
    tensors = {"input": writer.requantise("input", "input", unit, *bounds)}
    labels, originals = network.labels(), dict.fromkeys((node.output[0] for node in writer.nodes), "input")
    parts = dict.fromkeys((node.name for node in writer.nodes), "input")
    for layer in network.layers:
        before = len(writer.nodes)
        named = replace(layer, name=labels[layer.name])
        tensors[layer.name] = _write(writer, named, [tensors[name] for name in layer.inputs])
        originals |= {node.output[0]: layer.original for node in writer.nodes[before:]}
        parts |= {node.name: layer.whole for node in writer.nodes[before:]}
    # HTVM wants a division (or a cast) at the end; 1 / scale is a power of two, so the result is exact.
    unit = network.exit.scale if network.interface.output == "float" else 1.0
    inverse = writer.constant("output/divisor", np.array([1.0 / unit]))
    originals[writer.add("Div", [tensors[network.sink], inverse], "output")] = "output"
    graph = helper.make_graph(
        writer.nodes,
        "dianaq_htvm",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *network.input_shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, *network.layers[-1].shape])],
        list(writer.initialisers.values()),
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dianaq"
    )
    onnx.checker.check_model(proto, full_check=True)
    return HtvmModel(proto, tensors, writer.ranges, originals, parts)


def _write(writer: _Writer, layer: Layer, inputs: list[str]) -> str:
    module, name = layer.module, layer.name
    if isinstance(module, IntegerConv2d):
        return _conv(writer, name, module, inputs)
    if isinstance(module, IntegerAnalogConv2d):
        return _analog(writer, layer, module, inputs)
    if isinstance(module, IntegerLinear):
        weight = writer.constant(f"{name}.weight", module.weight)
        bias = writer.constant(f"{name}.bias", module.bias)
        source = writer.add("Gemm", [*inputs, weight, bias], f"{name}/gemm", transB=1)
        return _shift(writer, source, name, module.shift)
    if isinstance(module, IntegerAdd):
        return _shift(writer, writer.add("Add", inputs, f"{name}/sum"), name, module.shift)
    if isinstance(module, IntegerRelu):
        return _relu(writer, name, module, inputs)
    if isinstance(module, IntegerGlobalAvgPool2d):
        return writer.add("GlobalAveragePool", inputs, f"{name}/mean")
    if isinstance(module, MaxPool2d):
        return writer.add(
            "MaxPool",
            inputs,
            f"{name}/pool",
            kernel_shape=module.kernel,
            strides=module.stride,
            pads=module.pads,
        )
    flat = writer.add("Flatten", inputs, f"{name}/flat", axis=1)
    if not inputs[0].endswith("/mean"):
        return flat
    # The one accepted form of a global average pool is GlobalAveragePool -> Flatten -> Floor -> Max -> Min.
    return writer.requantise(flat, name, 1, 0, INT8.hi)


def _conv(writer: _Writer, name: str, module: IntegerConv2d, inputs: list[str]) -> str:
    """Conv with its bias as the third input, zeros included: otherwise it is left to the CPU."""
    weight = writer.constant(f"{name}.weight", module.weight)
    bias = writer.constant(f"{name}.bias", module.bias)
    geometry = module.geometry
    source = writer.add(
        "Conv",
        [*inputs, weight, bias],
        f"{name}/conv",
        kernel_shape=list(module.weight.shape[2:]),
        strides=geometry.stride,
        pads=geometry.pads,
        dilations=geometry.dilation,
        group=geometry.groups,
    )
    return _shift(writer, source, name, module.shift)


def _analog(writer: _Writer, layer: Layer, module: IntegerAnalogConv2d, inputs: list[str]) -> str:
    """`Conv -> Div(g) -> Floor -> Max(-32) -> Min(31) -> Mul(k) -> Add(l) -> [Div 2^n] -> Floor -> Max -> Min`.

    No bias, group 1: HTVM takes this for the analog core. It has no form for several row tiles: these are a grouped
    convolution and a sum over the converters' results here, which is exact but runs nowhere but on a CPU.
    """
    name, geometry, tiles = layer.name, module.geometry, module.tiles
    weight, groups = module.weight, 1
    if tiles.count > 1:
        missing = tiles.count * tiles.channels - weight.shape[1]
        if missing:
            pads = writer.constant(f"{name}.pads", np.array([0, 0, 0, 0, 0, missing, 0, 0]), dtype=np.int64)
            inputs = [writer.add("Pad", [*inputs, pads], f"{name}/padded", mode="constant")]
            weight = F.pad(weight, (0, 0, 0, 0, 0, missing))
        weight, groups = tiles.grouped(weight), tiles.count
    source = writer.add(
        "Conv",
        [*inputs, writer.constant(f"{name}.weight", weight)],
        f"{name}/conv",
        kernel_shape=list(weight.shape[2:]),
        strides=geometry.stride,
        pads=geometry.pads,
        dilations=geometry.dilation,
        group=groups,
    )
    # The division stays even where g = 1: the pattern of the analog core begins with it.
    source = writer.add("Div", [source, writer.vector(module.gain)], f"{name}/adc/div")
    source = writer.clip(source, f"{name}/adc", ADC.lo, ADC.hi)
    if tiles.count > 1:
        shape = np.array([1, tiles.count, *layer.shape])
        source = writer.add(
            "Reshape", [source, writer.constant(f"{name}.tiles", shape, dtype=np.int64)], f"{name}/tiles"
        )
        axis = writer.constant("tile_axis", np.array([1]), dtype=np.int64)
        source = writer.add("ReduceSum", [source, axis], f"{name}/sum", keepdims=0)
    channels = (1, -1, 1, 1)
    source = writer.add("Mul", [source, writer.constant(f"{name}.k", module.k.reshape(channels))], f"{name}/mul")
    source = writer.add("Add", [source, writer.constant(f"{name}.l", module.l.reshape(channels))], f"{name}/add")
    return _shift(writer, source, name, module.shift)


def _shift(writer: _Writer, source: str, name: str, shift: Shift) -> str:
    return writer.requantise(source, name, 2.0**shift.shift, shift.qrange.lo, shift.qrange.hi)


def _relu(writer: _Writer, name: str, module: IntegerRelu, inputs: list[str]) -> str:
    """A ReLU that is no layer's own: a Clip behind the signed requantisation of an addition."""
    bounds = [writer.constant("zero", 0.0), writer.constant("int8_max", float(module.qrange.hi))]
    clipped = writer.add("Clip", [*inputs, *bounds], f"{name}/relu")
    writer.ranges[clipped] = (module.qrange.lo, module.qrange.hi)
    return clipped


def export_htvm(network: IntegerNetwork, folder: Path, x: Tensor, y: Tensor) -> HtvmModel:
    """Write `model.onnx`, `input.npy` and `output.npy` (one sample), and nothing else: HTVM loads every npy there.

    Args:
        folder: created; must not exist.
        x, y: what the network is fed and gives, batch 1 (`IntegerNetwork.fed`, `given`).
    """
    model = build_htvm(network)
    folder.mkdir(parents=True)
    onnx.save(model.proto, str(folder / "model.onnx"))
    np.save(folder / "input.npy", x.contiguous().numpy())
    np.save(folder / "output.npy", y.contiguous().numpy())
    return model
