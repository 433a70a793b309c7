"""DORY's layers: their parameters, their attributes, and what they are followed by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dianaq.schemas.quantisers import Core
from dianaq_quant.export.check.dory_requantisation import INTEGERS, Form, requantisation
from dianaq_quant.export.check.findings import Log
from dianaq_quant.export.check.geometry import channels_of, pads_of, pair, size_of
from dianaq_quant.export.check.graph import Array, Graph, Node, fraction_in
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, INT8, TERNARY
from dianaq_quant.targets.diana.placement import LayerGeometry, soc_faults
from dianaq_quant.targets.diana.rules import Rule

PARAMETERS = Rule(
    "dory.parameters", "rejected", "Conv / Gemm: x, <name>.weight, <name>.bias as initialisers, in float32"
)
WEIGHT_NAME = Rule("dory.weight-name", "rejected", 'the weight\'s name contains "weight" and not "bias"')
BIAS_NAME = Rule("dory.bias-name", "rejected", 'the bias\'s name contains "bias"')
BIAS = Rule("dory.bias", "rejected", "digital: Conv(+bias), Gemm(+bias)")
WEIGHT_BITS = Rule(
    "dory.weight-bits", "rejected", "weight_bits is 8, or 2 = analog: the only selector of the core; 8 elsewhere"
)
CORE = Rule(
    "dory.core",
    "wrong",
    "weight_bits selects the core: 2 is analog, a conv of group 1 with weights in {-1,0,1} and k, l per channel; the "
    "digital core has no multiplier per channel",
)
BIAS_BITS = Rule("dory.bias-bits", "rejected", "bias_bits is 32, where there is a bias")
ATTRIBUTES = Rule("dory.attributes", "rejected", "explicit kernel_shape, strides, pads, dilations, group")
WEIGHT_RANGE = Rule("dory.weight-range", "wrong", "weights in the range of weight_bits, biases in int32")
ORIENTATION = Rule(
    "dory.gemm-orientation",
    "wrong",
    "Gemm weights are stored (C_in, C_out) with transB = 0; a square transB = 1 matrix is transposed silently",
)
ADD_FIELDS = Rule(
    "dory.add-attributes",
    "rejected",
    "Add: integer attributes in1_mul in1_add in1_shift in1_n_levels in1_rq, the same for in2_ and out_, add_bits, "
    "out_signed, weight_bits=8",
)
ADD_NEUTRAL = Rule("dory.add-neutral", "wrong", "neutral values mul 1, add 0, shift 0, n_levels 256, rq 0")
POOL = Rule("dory.pool", "rejected", "AveragePool/GlobalAveragePool -> Floor (-> Flatten)")
MAX_POOL = Rule("dory.max-pool", "note", "of a MaxPool it is not known whether DORY takes it")
ADC = Rule("dory.converter", "note", "the ADC step cannot be expressed in this front end")

_NEUTRAL = {"mul": 1, "add": 0, "shift": 0, "n_levels": 256, "rq": 0}
ADD_ATTRIBUTES = {f"{side}_{key}": value for side in ("in1", "in2", "out") for key, value in _NEUTRAL.items()}
"""An addition's attributes and their neutral values."""

_GEOMETRY = {"kernel_shape": 2, "strides": 2, "pads": 4, "dilations": 2}
"""Lists of integers that a Conv must have, and their lengths."""


@dataclass
class DoryReading:
    """The graph, what was found in it, the core that computed each tensor, and the fused layers' names and output
    tensors in DORY's order."""

    graph: Graph
    log: Log
    cores: dict[str, Core] = field(default_factory=dict)
    fused: list[tuple[str, str]] = field(default_factory=list)

    def enter(self, node: Node, output: str, geometry: LayerGeometry) -> None:
        """A fused layer, with what follows from its geometry."""
        self.fused.append((node.name, output))
        self.cores[output] = geometry.core
        self.log.layer(node.name, geometry, soc_faults(geometry), wrong_is_off=True)


def layer(reading: DoryReading, node: Node) -> None:
    """`Conv` or `Gemm` with its requantisation: digital with a bias, analog with k and l per channel."""
    graph, log = reading.graph, reading.log
    graph.take(node)
    core: Core = "analog" if node.attributes.get("weight_bits") == 2 else "digital"
    weight, bias = _parameters(log, graph, node, core)
    _attributes(log, node, bias is not None)
    form = requantisation(graph, log, node, node.output)
    if node.op == "Gemm" and node.attributes.get("transB", 0) != 0:
        log.add(ORIENTATION, node.name, f"transB is {node.attributes['transB']}")
    if weight is None:
        return
    _core(log, node, weight, core, form)
    if core == "analog":
        log.add(ADC, node.name, "it is computed without the converter")
    geometry = _geometry(graph, node, weight, core, form, bias is not None)
    reading.enter(node, form.output, geometry)


def _parameters(log: Log, graph: Graph, node: Node, core: Core) -> tuple[Array | None, Array | None]:
    """Weight and bias: float32 initialisers of integers, told apart by their names."""
    limits = (TERNARY.lo, TERNARY.hi) if core == "analog" else (INT8.lo, INT8.hi)
    weight = _parameter(log, graph, node, 1, limits)
    bias = _parameter(log, graph, node, 2, (-ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT - 1))
    if weight is None:
        log.add(PARAMETERS, node.name, "it has no constant weight")
    elif "weight" not in node.inputs[1] or "bias" in node.inputs[1]:
        log.add(WEIGHT_NAME, node.name, f"its weight is called {node.inputs[1]!r}")
    if bias is None:
        if core == "digital":
            log.add(BIAS, node.name, "it has no constant bias")
    elif "bias" not in node.inputs[2]:
        log.add(BIAS_NAME, node.name, f"its bias is called {node.inputs[2]!r}")
    return weight, bias


def _parameter(log: Log, graph: Graph, node: Node, index: int, limits: tuple[int, int]) -> Array | None:
    value = graph.constant(node, index)
    if value is None:
        return None
    name = node.inputs[index]
    if name not in graph.initialisers or value.dtype != np.float32:
        kind = "an initialiser" if name in graph.initialisers else "a Constant"
        log.add(PARAMETERS, node.name, f"{name!r} is {kind} of {value.dtype}")
    if (fraction := fraction_in(value)) is not None:
        log.add(INTEGERS, node.name, f"{name!r} holds {fraction}")
    # As Python's floats: float32 would round the upper end of int32 to one more.
    if value.size and (float(value.min()) < limits[0] or float(value.max()) > limits[1]):
        message = f"{name!r} reaches from {value.min():g} to {value.max():g}, beyond {list(limits)}"
        log.add(WEIGHT_RANGE, node.name, message)
    return value


def _attributes(log: Log, node: Node, bias: bool) -> None:
    bits = node.attributes.get("weight_bits")
    if not _is_integer(bits) or bits not in ((2, 8) if node.op == "Conv" else (8,)):
        log.add(WEIGHT_BITS, node.name, f"weight_bits is {_said(bits)}")
    if bias and not (_is_integer(node.attributes.get("bias_bits")) and node.attributes["bias_bits"] == 32):
        log.add(BIAS_BITS, node.name, f"bias_bits is {_said(node.attributes.get('bias_bits'))}")
    if node.op == "Gemm":
        return
    for key, length in _GEOMETRY.items():
        value = node.attributes.get(key)
        if not isinstance(value, list) or len(value) != length or not all(map(_is_integer, value)):
            log.add(ATTRIBUTES, node.name, f"{key} is {_said(value)}, not {length} integers")
    if not _is_integer(node.attributes.get("group")):
        log.add(ATTRIBUTES, node.name, f"group is {_said(node.attributes.get('group'))}, not an integer")


def _core(log: Log, node: Node, weight: Array, core: Core, form: Form) -> None:
    """Whether the layer is one of the core that `weight_bits` selects."""
    if core == "digital" and form.per_channel:
        log.add(CORE, node.name, "weight_bits is 8, and it is scaled per channel")
    if core == "analog":
        if not form.per_channel:
            log.add(CORE, node.name, "weight_bits is 2, and it has no k and l per channel")
        if weight.size and not np.isin(weight, (-1, 0, 1)).all():
            log.add(CORE, node.name, f"weight_bits is 2, its weights reach from {weight.min():g} to {weight.max():g}")


def _geometry(graph: Graph, node: Node, weight: Array, core: Core, form: Form, bias: bool) -> LayerGeometry:
    source = node.inputs[0]
    if node.op == "Gemm" or weight.ndim != 4:
        return LayerGeometry(
            kind="fc",
            core=core,
            c_in=channels_of(graph, source),
            c_out=channels_of(graph, node.output),
            clip=form.clip,
            shift=form.shift,
            bias=bias,
        )
    kernel, groups = (weight.shape[2], weight.shape[3]), int(node.attributes.get("group", 1))
    return LayerGeometry(
        kind="depthwise" if groups > 1 and groups == weight.shape[0] else "conv",
        core=core,
        c_in=channels_of(graph, source),
        c_out=weight.shape[0],
        in_size=size_of(graph, source),
        out_size=size_of(graph, node.output),
        kernel=kernel,
        strides=pair(node, "strides"),
        pads=pads_of(graph, node, kernel),
        dilation=pair(node, "dilations"),
        groups=groups,
        clip=form.clip,
        shift=form.shift,
        bias=bias,
        constants=form.constants,
    )


def addition(reading: DoryReading, node: Node) -> None:
    """`Add{...} -> Mul(1.0) -> Div -> Floor -> Clip`."""
    graph, log = reading.graph, reading.log
    graph.take(node)
    wanted = [*ADD_ATTRIBUTES, "add_bits", "out_signed"]
    wrong = {key: node.attributes.get(key) for key in wanted if not _is_integer(node.attributes.get(key))}
    if node.attributes.get("weight_bits") != 8:
        wrong["weight_bits"] = node.attributes.get("weight_bits")
    if wrong:
        log.add(ADD_FIELDS, node.name, ", ".join(f"{key} is {_said(value)}" for key, value in wrong.items()))
    found = {key: node.attributes.get(key, value) for key, value in ADD_ATTRIBUTES.items()}
    changed = [
        f"{key} is {value}, not {ADD_ATTRIBUTES[key]}" for key, value in found.items() if value != ADD_ATTRIBUTES[key]
    ]
    if changed:
        log.add(ADD_NEUTRAL, node.name, ", ".join(changed))
    form = requantisation(graph, log, node, node.output)
    size, channels = size_of(graph, node.output), channels_of(graph, node.output)
    geometry = LayerGeometry.of_add(channels, size, clip=form.clip, shift=form.shift)
    reading.enter(node, form.output, geometry)


def pool(reading: DoryReading, node: Node) -> None:
    """`AveragePool/GlobalAveragePool{weight_bits=8} -> Floor (-> Flatten)`; and MaxPool."""
    graph, log = reading.graph, reading.log
    graph.take(node)
    if node.attributes.get("weight_bits") != 8:
        log.add(WEIGHT_BITS, node.name, f"weight_bits is {_said(node.attributes.get('weight_bits'))}")
    source, output = node.inputs[0], node.output
    if node.op == "MaxPool":
        log.add(MAX_POOL, node.name, "it is a MaxPool")
    else:
        after = graph.next(node.output)
        if after is None or after.op != "Floor":
            log.add(POOL, node.name, f"it is followed by {'several nodes' if after is None else after.op}")
        else:
            graph.take(after)
            output = after.output
    geometry = LayerGeometry(
        kind="pool",
        core="digital",
        c_in=channels_of(graph, source),
        c_out=channels_of(graph, node.output),
        in_size=size_of(graph, source),
        out_size=size_of(graph, node.output),
        kernel=pair(node, "kernel_shape") if "kernel_shape" in node.attributes else size_of(graph, source),
        strides=pair(node, "strides"),
        bias=False,
        after_digital=reading.cores.get(source) == "digital",
    )
    reading.enter(node, output, geometry)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int)


def _said(value: Any) -> str:
    return "missing" if value is None else repr(value)
