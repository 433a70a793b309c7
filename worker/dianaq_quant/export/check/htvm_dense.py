"""HTVM's fully connected layers and additions."""

from __future__ import annotations

from dianaq_quant.export.check.geometry import channels_of, size_of
from dianaq_quant.export.check.graph import Node
from dianaq_quant.export.check.htvm_reading import PARAMETERS, Reading
from dianaq_quant.export.check.htvm_requantisation import clip_bounds
from dianaq_quant.targets.diana import RECTIFIED
from dianaq_quant.targets.diana.placement import LayerGeometry
from dianaq_quant.targets.diana.rules import Rule

ADD_OPERANDS = Rule(
    "htvm.add-operands",
    "wrong",
    "two int8 tensors of the same shape; no Mul on an operand, no broadcast; a requantisation between successive adds: "
    "otherwise rejected, or wrong",
)


def gemm(reading: Reading, node: Node) -> None:
    """`Gemm` (transB 0 or 1) with a bias, and its requantisation."""
    reading.graph.take(node)
    _fully_connected(reading, node, reading.bias(node), node.output)


def matmul(reading: Reading, node: Node) -> None:
    """`MatMul + Add(x, b)`, and its requantisation."""
    reading.graph.take(node)
    after = reading.graph.next(node.output)
    if after is None or not reading.adds_constant(after):
        _fully_connected(reading, node, False, node.output)
        return
    reading.graph.take(after)
    _fully_connected(reading, node, reading.bias(after, 1), after.output)


def _fully_connected(reading: Reading, node: Node, bias: bool, accumulator: str) -> None:
    if reading.weight(node) is None:
        reading.log.add(PARAMETERS, node.name, "its weight is no constant")
    result = reading.requantised(node, accumulator)
    geometry = LayerGeometry(
        kind="fc",
        core="digital",
        c_in=channels_of(reading.graph, node.inputs[0]),
        c_out=channels_of(reading.graph, node.output),
        clip=None if result is None else result.clip,
        shift=None if result is None else result.shift,
        bias=bias,
    )
    reading.place(node, geometry)


def addition(reading: Reading, node: Node) -> None:
    """`Add` of two requantised tensors, and its requantisation."""
    graph = reading.graph
    graph.take(node)
    shapes = [graph.shape(name) for name in node.inputs]
    if shapes[0] != shapes[1]:
        reading.log.add(ADD_OPERANDS, node.name, f"its operands have the shapes {shapes[0]} and {shapes[1]}")
    for name in dict.fromkeys(node.inputs):
        if name not in reading.ranges:
            producer = graph.producers.get(name)
            source = producer.op if producer else "a constant" if name in graph.constants else "the input"
            reading.log.add(ADD_OPERANDS, node.name, f"its operand {name!r} comes from {source}, not requantised")
    result = reading.requantised(node, node.output)
    if result is not None:
        reading.sums.add(result.output)
    size, channels = size_of(graph, node.output), channels_of(graph, node.output)
    geometry = LayerGeometry.of_add(
        channels, size, clip=None if result is None else result.clip, shift=None if result is None else result.shift
    )
    reading.place(node, geometry)


def clip(reading: Reading, node: Node) -> None:
    """The remedy of a ReLU after an add: `Max(-128) -> Min(127) -> Clip(0,127)`."""
    bounds = (RECTIFIED.lo, RECTIFIED.hi)
    if node.inputs[0] in reading.sums and clip_bounds(reading.graph, node) == bounds:
        reading.graph.take(node)
        reading.ranges[node.output] = bounds
