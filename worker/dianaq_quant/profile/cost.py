"""What the layers of an integer network cost on the chip: operations, time, energy, and bytes of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dianaq.schemas.quantisers import Core
from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.modules.integer import IntegerAnalogConv2d, IntegerConv2d, IntegerLinear
from dianaq_quant.modules.structure import Flatten
from dianaq_quant.targets.diana.cost import LayerShape, cycles, energy, latency
from dianaq_quant.targets.diana.limits import (
    ANALOG_WEIGHT_BYTES,
    DIGITAL_WEIGHT_BYTES,
    L1_SOC_BYTES,
    L1_TVM_BYTES,
    L2_BYTES,
)

BIAS_BYTES = 4
"""A digital layer's bias is int32 [hw]."""

CELLS_PER_BYTE = 4
"""A ternary weight takes a cell of 2 bits [hw]."""

CONSTANT_BYTES = 2
"""`k` and `l` of an analog layer are int16 to the compilers, one of each per output channel."""

LIMITS = {
    "l2": L2_BYTES,
    "l1_tvm": L1_TVM_BYTES,
    "l1_soc": L1_SOC_BYTES,
    "digital_weights": DIGITAL_WEIGHT_BYTES,
    "analog_weights": ANALOG_WEIGHT_BYTES,
}
"""Bytes of the chip's memories, as the report names them."""


def layer_shape(layer: Layer) -> tuple[LayerShape, Core] | None:
    """The dimensions of a linear layer and its core; None for the operations that the cost model does not know."""
    module = layer.module
    if isinstance(module, IntegerLinear):
        c_out, c_in = module.weight.shape
        return LayerShape(c_in, c_out, (1, 1), (1, 1)), "digital"
    if isinstance(module, IntegerConv2d | IntegerAnalogConv2d):
        groups, (c_out, per_group, kh, kw) = module.geometry.groups, module.weight.shape
        core: Core = "analog" if isinstance(module, IntegerAnalogConv2d) else "digital"
        return LayerShape(per_group * groups, c_out, (kh, kw), (layer.shape[1], layer.shape[2]), groups), core
    return None


def layer_cost(layer: Layer) -> dict[str, Any]:
    """`macs`, `cycles`, `latency_s`, `energy_j` of a layer; all 0 for pooling, additions and flattening.

    No model of those is published.
    """
    known = layer_shape(layer)
    if known is None:
        return {"macs": 0, "cycles": 0.0, "latency_s": 0.0, "energy_j": 0.0}
    shape, core = known
    weights = shape.c_out * shape.c_in // shape.groups * math.prod(shape.kernel)
    return {
        "macs": weights * math.prod(shape.out_size),
        "cycles": cycles(shape, core),
        "latency_s": latency(shape, core),
        "energy_j": energy(shape, core),
    }


def weight_bytes(layer: Layer) -> int:
    """Bytes of a layer's constants: int8 weights and int32 biases; or cells of 2 bits, `k` and `l`."""
    module = layer.module
    if isinstance(module, IntegerAnalogConv2d):
        return -(-module.weight.numel() // CELLS_PER_BYTE) + CONSTANT_BYTES * (module.k.numel() + module.l.numel())
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    held = weight.numel() if isinstance(weight, Tensor) else 0
    return held + (BIAS_BYTES * bias.numel() if isinstance(bias, Tensor) else 0)


def layer_memory(network: IntegerNetwork) -> dict[str, dict[str, int]]:
    """Per layer: `weight_bytes`, `input_bytes`, `output_bytes`, and the `live_bytes` of activations while it runs.

    An activation takes a byte per value. One is alive from the layer that writes it to the last one that reads it,
    so that a residual stays while its branch is computed. Flattening moves nothing: it reads and writes one tensor.
    """
    sizes = {"input": math.prod(network.input_shape)} | {entry.name: math.prod(entry.shape) for entry in network.layers}
    live = _live_bytes(network, sizes)
    return {
        layer.name: {
            "weight_bytes": weight_bytes(layer),
            "input_bytes": sum(sizes[name] for name in layer.inputs),
            "output_bytes": sizes[layer.name],
            "live_bytes": live[layer.name],
        }
        for layer in network.layers
    }


def _live_bytes(network: IntegerNetwork, sizes: Mapping[str, int]) -> dict[str, int]:
    tensor = {"input": "input"}  # the one that holds a layer's output
    born, dies = {"input": 0}, {"input": 0}
    for index, layer in enumerate(network.layers):
        for name in layer.inputs:
            dies[tensor[name]] = index
        tensor[layer.name] = tensor[layer.inputs[0]] if isinstance(layer.module, Flatten) else layer.name
        born.setdefault(tensor[layer.name], index)
        dies[tensor[layer.name]] = index
    dies[tensor[network.sink]] = len(network.layers)
    return {
        layer.name: sum(sizes[name] for name, start in born.items() if start <= index <= dies[name])
        for index, layer in enumerate(network.layers)
    }


def totals(network: IntegerNetwork) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole network's cost, its layers one after the other, and its memory beside the chip's limits."""
    costs = {layer.name: layer_cost(layer) for layer in network.layers}
    cost: dict[str, Any] = {
        what: sum(entry[what] for entry in costs.values()) for what in ("macs", "cycles", "latency_s", "energy_j")
    }
    cost["not_modelled"] = [layer.name for layer in network.layers if layer_shape(layer) is None]
    memory = layer_memory(network)
    peak = max(network.layers, key=lambda layer: memory[layer.name]["live_bytes"])
    weights = sum(entry["weight_bytes"] for entry in memory.values())
    analog = [entry.name for entry in network.layers if isinstance(entry.module, IntegerAnalogConv2d)]
    live = memory[peak.name]["live_bytes"]
    return cost, {
        "weight_bytes": weights,
        "analog_weight_bytes": sum(memory[name]["weight_bytes"] for name in analog),
        "peak_activation_bytes": live,
        "peak_layer": peak.name,
        "total_bytes": weights + live,
        "limits": LIMITS,
        "exceeded": _exceeded(network, memory, weights + live),
    }


def _exceeded(network: IntegerNetwork, memory: Mapping[str, Mapping[str, int]], total: int) -> list[dict[str, Any]]:
    """Which memories are too small for what: `{"layer", "memory", "bytes", "limit"}`; no layer for the network."""
    asked: list[tuple[str | None, str, int]] = [(None, "l2", total)]
    for layer in network.layers:
        found = memory[layer.name]
        known = layer_shape(layer)
        if known is not None:
            activations = found["input_bytes"] + found["output_bytes"]
            asked += [(layer.name, f"{known[1]}_weights", found["weight_bytes"])]
            asked += [(layer.name, name, activations) for name in ("l1_tvm", "l1_soc")]
    return [
        {"layer": layer, "memory": name, "bytes": size, "limit": LIMITS[name]}
        for layer, name, size in asked
        if size > LIMITS[name]
    ]
