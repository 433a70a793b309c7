"""The DORY dialect (Quantlab front end), rule by rule: the whole graph, its names, its ends, its order."""

from __future__ import annotations

import onnx

from dianaq_quant.export.check.dory_layers import ADD_ATTRIBUTES, DoryReading, addition, layer, pool
from dianaq_quant.export.check.findings import Log
from dianaq_quant.export.check.graph import Graph, Node
from dianaq_quant.targets.diana.rules import Rule

ONNX = Rule("dory.onnx", "rejected", "its extra attributes stripped, the file is ONNX")
OPSET = Rule("dory.opset", "rejected", "opset <= 10 (Clip bounds are attributes)")
SHAPES = Rule("dory.static-shapes", "rejected", "static shapes")
INPUT = Rule("dory.input", "rejected", "one input named `0`")
DECIMAL = Rule("dory.decimal-names", "rejected", "every node output is a decimal integer")
INCREASING = Rule("dory.increasing-names", "rejected", "node outputs strictly increase in node order")
DROPPED = Rule(
    "dory.dropped-nodes",
    "rejected",
    "nodes DORY drops (Cast, Floor, Flatten, Reshape, Squeeze, Unsqueeze, ...) directly follow their producer",
)
FIELDS = Rule("dory.field-names", "rejected", "never a name that is a DORY field such as k, l, min")
FIRST = Rule("dory.first-node", "rejected", "the first node is Conv or Gemm", of_network=True)
QUANTISED_INPUT = Rule("dory.quantised-input", "rejected", "no requantiser on the input; the network takes integers")
LAST = Rule("dory.last-node", "rejected", "the last is the final Clip, optionally followed by Flatten", of_network=True)
DEQUANTISED_OUTPUT = Rule(
    "dory.dequantised-output", "rejected", "no dequantising Div on the output; the network gives integers"
)
OUTPUT = Rule("dory.output", "rejected", "one output, that of the last node")
OPERATOR = Rule(
    "dory.operator",
    "rejected",
    "the operators of the layers' forms; of others it is not known whether DORY takes them",
)

NEWEST_OPSET = 10
"""The last opset in which Clip's bounds are attributes."""

DROPS = frozenset({"Cast", "Floor", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that DORY removes from the graph; its list is longer, and none of the others is in a layer's form."""

_FIELDS = frozenset(
    {"k", "l", "min", "max", "weight_bits", "bias_bits", "out_bits", "kernel_shape", "strides", "pads", "dilations"}
) | {"group", *ADD_ATTRIBUTES}
"""Names that DORY's nodes have as fields: those that are known, and every attribute that they are read from."""

_REQUANTISER = frozenset({"Mul", "Div", "Floor", "Round", "Max", "Min", "Clip"})


def check_graph(graph: Graph) -> DoryReading:
    """Findings, layers and golden tensors of a graph that is meant for DORY."""
    log = Log()
    reading = DoryReading(graph, log)
    if graph.error is not None:
        log.add(ONNX, "", graph.error)
        return reading
    if graph.shape_error is not None:
        log.add(ONNX, "", graph.shape_error)
        log.places = False
    if graph.opset > NEWEST_OPSET:
        log.add(OPSET, "", f"opset {graph.opset}")
    _names(graph, log)
    _ends(graph, log)
    for node in graph.nodes:
        if log.places and graph.shape(node.output) is None:
            log.add(SHAPES, node.name, f"its output has no fixed shape: {graph.shapes.get(node.output, 'unknown')}")
        if node.op in DROPS and node.index > 0:
            before = graph.producers.get(node.inputs[0])
            if before is None or before.index != node.index - 1:
                log.add(DROPPED, node.name, f"{node.op} reads {node.inputs[0]!r}, which is not of the node before it")
    readers = {"Conv": layer, "Gemm": layer, "Add": addition}
    readers |= dict.fromkeys(("GlobalAveragePool", "AveragePool", "MaxPool"), pool)
    for node in graph.nodes:
        if node.index not in graph.taken and node.op in readers:
            readers[node.op](reading, node)
    for node in graph.nodes:
        if node.index not in graph.taken and node.op not in DROPS - {"Floor"}:
            log.add(OPERATOR, node.name, f"{node.op} is not a part of any form that is known")
    return reading


def _names(graph: Graph, log: Log) -> None:
    if list(graph.inputs) != ["0"]:
        log.add(INPUT, "", f"its inputs are named {', '.join(map(repr, graph.inputs)) or 'nothing'}")
    for name in graph.inputs:
        if graph.shape(name) is None:
            log.add(SHAPES, name, f"input {name!r} has the shape {graph.shapes.get(name, 'unknown')}")
        if graph.types[name] != onnx.TensorProto.FLOAT:
            log.add(INPUT, name, f"{name!r} is {onnx.TensorProto.DataType.Name(graph.types[name]).lower()}")
    last = -1
    for node in graph.nodes:
        for name in node.outputs:
            if not (name.isascii() and name.isdecimal()):
                log.add(DECIMAL, node.name, f"it writes {name!r}")
                continue
            if int(name) <= last:
                log.add(INCREASING, node.name, f"it writes {name!r} after {str(last)!r}")
            last = int(name)
    for name in sorted(graph.constants):
        if name in _FIELDS:
            log.add(FIELDS, name, f"a constant is called {name!r}")


def _ends(graph: Graph, log: Log) -> None:
    first, last = graph.nodes[0], graph.nodes[-1]
    if first.op in _REQUANTISER:
        log.add(QUANTISED_INPUT, first.name, f"the first node is {first.op}")
    elif first.op not in ("Conv", "Gemm"):
        log.add(FIRST, first.name, f"the first node is {first.op}")
    if list(graph.outputs) != [last.output]:
        log.add(OUTPUT, "", f"its outputs are {', '.join(graph.outputs)}, its last node writes {last.output}")
    end: Node | None = last
    if last.op == "Flatten":
        end = graph.producers.get(last.inputs[0])
    if end is not None and end.op in ("Div", "Mul", "Cast"):
        log.add(DEQUANTISED_OUTPUT, end.name, f"the last node is {end.op}")
    elif end is None or end.op != "Clip":
        log.add(LAST, last.name, f"the network ends in {last.op if end is None else end.op}")
