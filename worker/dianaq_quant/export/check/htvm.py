"""The HTVM dialect, rule by rule: the whole graph, its input, its output, and what no layer accounts for."""

from __future__ import annotations

import onnx

from dianaq_quant.export.check.findings import Log
from dianaq_quant.export.check.graph import Graph
from dianaq_quant.export.check.htvm_conv import convolution
from dianaq_quant.export.check.htvm_dense import addition, clip, gemm, matmul
from dianaq_quant.export.check.htvm_pools import average_pool, flatten, global_pool, max_pool
from dianaq_quant.export.check.htvm_reading import Reading
from dianaq_quant.export.check.htvm_requantisation import requantisation
from dianaq_quant.targets.diana.placement import htvm_network_faults
from dianaq_quant.targets.diana.rules import Rule

ONNX = Rule("htvm.onnx", "rejected", "plain ONNX, runs in onnxruntime")
OPSET = Rule("htvm.opset", "note", "opset 10, 13, 17 all work")
ATTRIBUTES = Rule("htvm.attributes", "note", "attributes are ignored; onnxruntime refuses those it does not know")
SHAPES = Rule("htvm.static-shapes", "rejected", "static shapes, batch 1")
INPUT = Rule("htvm.input", "rejected", "one float32 tensor named `input`")
INPUT_REQUANTISATION = Rule(
    "htvm.input-requantisation",
    "wrong",
    "the input goes straight into a requantisation; a missing one is accepted and wrong",
)
OUTPUT = Rule(
    "htvm.output",
    "rejected",
    "end in Div(const) (any value) or Cast; one output. Ending in Min, raw Gemm, Mul or Softmax is rejected",
)
OPERATOR = Rule(
    "htvm.operator",
    "rejected",
    "the operators of the layers' forms; of others it is not known whether HTVM takes them",
)

OPSETS = (10, 13, 17)
"""The versions that HTVM was tried with."""

_LAYERS = {
    "Conv": convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    "Add": addition,
    "Clip": clip,
    "GlobalAveragePool": global_pool,
    "AveragePool": average_pool,
    "ReduceMean": average_pool,
    "MaxPool": max_pool,
    "Flatten": flatten,
}
"""What reads a form that begins with an operator."""


def check_graph(graph: Graph) -> Log:
    """Findings and layers of a graph that is meant for HTVM."""
    log = Log()
    if graph.error is not None:
        log.add(ONNX, "", graph.error)
        return log
    if graph.shape_error is not None:
        log.add(ONNX, "", graph.shape_error)
        log.places = False
    if graph.opset not in OPSETS:
        log.add(OPSET, "", f"opset {graph.opset} was not tried")
    for name, names in graph.unknown_attributes.items():
        log.add(ATTRIBUTES, name, f"ONNX does not know {', '.join(names)}")
    _shapes(graph, log)
    _output(graph, log)
    reading = Reading(graph, log)
    _input(reading)
    for node in graph.nodes:
        if node.index not in graph.taken and node.op in _LAYERS:
            _LAYERS[node.op](reading, node)
    for node in graph.nodes:
        if node.index not in graph.taken:
            log.add(OPERATOR, node.name, f"{node.op} is not a part of any form that is known")
    for fault in htvm_network_faults([layer.geometry for layer in log.layers]):
        log.add(fault.rule, "", fault.message)
    return log


def _shapes(graph: Graph, log: Log) -> None:
    for name in graph.inputs:
        shape = graph.shape(name)
        if shape is None or shape[:1] != (1,):
            log.add(SHAPES, name, f"input {name!r} has the shape {_written(graph, name)}")
    if log.places and all(graph.shape(name) is not None for name in graph.inputs):
        for node in graph.nodes:
            if graph.shape(node.output) is None:
                log.add(SHAPES, node.name, f"its output has the shape {_written(graph, node.output)}")


def _written(graph: Graph, tensor: str) -> str:
    shape = graph.shapes.get(tensor)
    return "unknown" if shape is None else str(["?" if d is None else d for d in shape]).replace("'", "")


def _input(reading: Reading) -> None:
    graph, log = reading.graph, reading.log
    if list(graph.inputs) != ["input"]:
        log.add(INPUT, "", f"its inputs are named {', '.join(map(repr, graph.inputs)) or 'nothing'}")
    for name in graph.inputs:
        if graph.types[name] != onnx.TensorProto.FLOAT:
            log.add(INPUT, name, f"{name!r} is {onnx.TensorProto.DataType.Name(graph.types[name]).lower()}")
        first = graph.next(name)
        if first is None or first.op not in ("Div", "Mul", "Floor", "Round", "Clip", "Max", "Min"):
            readers = ", ".join(node.op for node in graph.readers(name)) or "nothing"
            log.add(INPUT_REQUANTISATION, name, f"{name!r} is read by {readers}")
            continue
        found = requantisation(graph, log, name, name, shifts=False)
        if found is not None:
            reading.ranges[found.output] = found.clip


def _output(graph: Graph, log: Log) -> None:
    if len(graph.outputs) != 1:
        log.add(OUTPUT, "", f"it has {len(graph.outputs)} outputs: {', '.join(graph.outputs)}")
    for name in graph.outputs:
        node = graph.producers.get(name)
        if node is not None and (node.op == "Cast" or (node.op == "Div" and graph.constant(node, 1) is not None)):
            graph.take(node)
        else:
            log.add(OUTPUT, name if node is None else node.name, f"it ends in {'nothing' if node is None else node.op}")
