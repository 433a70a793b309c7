"""HTVM's convolutions: digital, depthwise, and analog with the converter."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dianaq_quant.export.check.geometry import channels_of, pads_of, pair, size_of
from dianaq_quant.export.check.graph import Array, Node, extremes_of
from dianaq_quant.export.check.htvm_reading import Reading
from dianaq_quant.export.check.htvm_requantisation import Requantisation, requantisation
from dianaq_quant.targets.diana import ADC
from dianaq_quant.targets.diana.placement import LayerGeometry
from dianaq_quant.targets.diana.rules import Fault, Rule

RANK = Rule("htvm.rank", "cpu", "a conv is one over two dimensions, its weight a constant", of_network=True)
BATCH_NORM = Rule("htvm.batch-norm", "rejected", "BatchNorm left: the model is rejected")
BIAS_AS_ADD = Rule("htvm.bias-as-add", "rejected", "bias as Add: the model is rejected")
TERNARY = Rule("htvm.ternary", "cpu", "analog: weights in {-1,0,1}; otherwise CPU")
CONVERTER = Rule(
    "htvm.converter", "cpu", "analog: Conv -> Div(g) -> Floor -> Max(-32) -> Min(31) -> Mul(k) -> Add(l); otherwise CPU"
)
ROW_TILES = Rule(
    "htvm.row-tiles",
    "cpu",
    "analog row tiles have no form: whether HTVM takes their Pad, Reshape and ReduceSum is not known, and if it does "
    "the CPU runs them",
    of_network=True,
)

LONGEST = 8
"""Nodes between an analog layer's Conv and its own requantisation: converter 4, row tiles 2, k and l."""


@dataclass(frozen=True)
class _Converter:
    """What follows an analog convolution: the converter, the sum over row tiles if there are any, k and l."""

    nodes: list[Node]
    tiles: list[Node]
    mul: Node
    add: Node


def convolution(reading: Reading, node: Node) -> None:
    """`Conv(x, weight, bias)` and its requantisation, or the form of the analog core."""
    reading.graph.take(node)
    weight = reading.weight(node)
    if weight is None or weight.ndim != 4:
        reading.log.add(RANK, node.name, "its weight is not a constant of four dimensions")
        reading.requantised(node, node.output)
        return
    found = _converter(reading, node)
    if found is not None:
        _analog(reading, node, weight, found)
        return
    result = reading.requantised(node, _after_loose_parts(reading, node))
    reading.place(node, _geometry(reading, node, weight, result))


def _after_loose_parts(reading: Reading, node: Node) -> str:
    """The tensor to be requantised, after what should have been folded into the convolution."""
    tensor = node.output
    while (after := reading.graph.next(tensor)) is not None:
        if after.op == "BatchNormalization":
            reading.log.add(BATCH_NORM, after.name, f"it follows {node.name}")
        elif reading.adds_constant(after):
            reading.log.add(BIAS_AS_ADD, after.name, f"it adds a constant to {node.name}")
        else:
            break
        reading.graph.take(after)
        tensor = after.output
    return tensor


def _converter(reading: Reading, node: Node) -> _Converter | None:
    """What makes a convolution an analog one: after a requantisation of its own, `Mul(k) -> Add(l)`."""
    chain = reading.graph.chain(node.output, LONGEST)
    ops = [n.op for n in chain]
    start = ops.index("Min") + 1 if "Min" in ops else 0
    if ops[:start] not in (["Div", "Floor", "Max", "Min"], ["Floor", "Max", "Min"]):
        return None
    end = start + 2 if ops[start : start + 2] == ["Reshape", "ReduceSum"] else start
    scaling = chain[end : end + 2]
    if [n.op for n in scaling] != ["Mul", "Add"] or any(reading.graph.constant(n, 1) is None for n in scaling):
        return None
    return _Converter(chain[:start], chain[start:end], *scaling)


def _analog(reading: Reading, node: Node, weight: Array, found: _Converter) -> None:
    """`Conv -> Div(g) -> Floor -> Max(-32) -> Min(31) -> Mul(k) -> Add(l) -> [Div 2^n] -> Floor -> Max -> Min`.

    No bias, weights in {-1,0,1}, group 1, any g; k and l within int16.
    """
    graph, faults = reading.graph, []
    converted = requantisation(graph, reading.log, node.output, node.name, shifts=False)
    if found.nodes[0].op != "Div" or converted is None or converted.clip != (ADC.lo, ADC.hi):
        bounds = "" if converted is None else f" to {list(converted.clip)}"
        faults.append(Fault(CONVERTER, f"its converter is {' -> '.join(n.op for n in found.nodes)}{bounds}"))
    if weight.size and (weight.min() < -1 or weight.max() > 1):
        faults.append(Fault(TERNARY, f"its weights reach from {weight.min():g} to {weight.max():g}"))
    constants = [value for n in (found.mul, found.add) if (value := reading.constant(n, 1)) is not None]
    graph.take(*found.tiles, found.mul, found.add)
    if found.tiles:
        faults.append(Fault(ROW_TILES, f"its rows are summed by {' -> '.join(n.op for n in found.tiles)}"))
        padding = graph.producers.get(node.inputs[0])
        if padding is not None and padding.op == "Pad":
            graph.take(padding)
    geometry = _geometry(reading, node, weight, reading.requantised(node, found.add.output))
    tiles = geometry.groups if found.tiles else 1
    analog = replace(
        geometry,
        kind="conv",
        core="analog",
        # The tiles' results are added up: together they are one channel of the layer.
        c_out=geometry.c_out // tiles,
        groups=geometry.groups // tiles,
        constants=extremes_of(constants),
        row_tiles=tiles,
    )
    reading.place(node, analog, faults)


def _geometry(reading: Reading, node: Node, weight: Array, result: Requantisation | None) -> LayerGeometry:
    kernel = (weight.shape[2], weight.shape[3])
    groups = int(node.attributes.get("group", 1))
    source = node.inputs[0]
    return LayerGeometry(
        kind="depthwise" if groups > 1 and groups == weight.shape[0] else "conv",
        core="digital",
        c_in=channels_of(reading.graph, source),
        c_out=weight.shape[0],
        in_size=size_of(reading.graph, source),
        out_size=size_of(reading.graph, node.output),
        kernel=kernel,
        strides=pair(node, "strides"),
        pads=pads_of(reading.graph, node, kernel),
        dilation=pair(node, "dilations"),
        groups=groups,
        clip=None if result is None else result.clip,
        shift=None if result is None else result.shift,
        bias=reading.bias(node),
    )
