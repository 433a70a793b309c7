"""HTVM's pools, which the CPU runs, and Flatten."""

from __future__ import annotations

from itertools import takewhile

from dianaq_quant.export.check.geometry import channels_of, pair, size_of
from dianaq_quant.export.check.graph import Node
from dianaq_quant.export.check.htvm_reading import Reading
from dianaq_quant.targets.diana.placement import LayerGeometry
from dianaq_quant.targets.diana.rules import Rule

GLOBAL_POOL = Rule(
    "htvm.global-pool",
    "rejected",
    "a global average pool is exactly GlobalAveragePool -> Flatten -> Floor -> Max -> Min, no Div",
)
GLOBAL_POOL_ORDER = Rule("htvm.global-pool-order", "rejected", "Floor before Flatten: rejected")
GLOBAL_POOL_FLOOR = Rule("htvm.global-pool-floor", "wrong", "without Floor: int8 overflow, silently wrong")
GLOBAL_POOL_SIGN = Rule(
    "htvm.global-pool-sign",
    "wrong",
    "a global average pool's input is >= 0 (signed inputs truncate instead of flooring)",
)
AVERAGE_POOL = Rule("htvm.average-pool", "rejected", "AveragePool + requantisation, ReduceMean: rejected")

_AFTER = ("Flatten", "Reshape", "Squeeze", "Div", "Mul", "Floor", "Round", "Max", "Min", "Clip")
"""Operators after a global pool that are meant as a part of its form."""


def global_pool(reading: Reading, node: Node) -> None:
    """`GlobalAveragePool -> Flatten -> Floor -> Max -> Min`, of an input >= 0."""
    graph, log = reading.graph, reading.log
    graph.take(node)
    _place(reading, node)
    bounds = reading.ranges.get(node.inputs[0])
    if bounds is not None and bounds[0] < 0:
        log.add(GLOBAL_POOL_SIGN, node.name, f"its input reaches down to {bounds[0]}")
    chain = [*takewhile(lambda after: after.op in _AFTER, graph.chain(node.output, 5))]
    ops = [after.op for after in chain]
    if ops[:4] == ["Flatten", "Floor", "Max", "Min"]:
        graph.take(chain[0])
        reading.requantised(node, chain[0].output)
        return
    what = f"it is followed by {' -> '.join(ops) or 'none of its form'}"
    if "Floor" not in ops:
        log.add(GLOBAL_POOL_FLOOR, node.name, what)
    elif "Flatten" in ops and ops.index("Floor") < ops.index("Flatten"):
        log.add(GLOBAL_POOL_ORDER, node.name, what)
    else:
        log.add(GLOBAL_POOL, node.name, what)
    graph.take(*chain)


def average_pool(reading: Reading, node: Node) -> None:
    """AveragePool and ReduceMean, which are rejected."""
    reading.graph.take(node)
    reading.log.add(AVERAGE_POOL, node.name, f"it is {node.op}")
    reading.requantised(node, node.output)
    _place(reading, node)


def max_pool(reading: Reading, node: Node) -> None:
    """MaxPool works, on the CPU; its values are some of its input's."""
    flatten(reading, node)
    _place(reading, node)


def flatten(reading: Reading, node: Node) -> None:
    """Flatten computes nothing."""
    reading.graph.take(node)
    if node.inputs[0] in reading.ranges:
        reading.ranges[node.output] = reading.ranges[node.inputs[0]]


def _place(reading: Reading, node: Node) -> None:
    source = node.inputs[0]
    geometry = LayerGeometry(
        kind="pool",
        core="digital",
        c_in=channels_of(reading.graph, source),
        c_out=channels_of(reading.graph, node.output),
        in_size=size_of(reading.graph, source),
        out_size=size_of(reading.graph, node.output),
        kernel=pair(node, "kernel_shape") if "kernel_shape" in node.attributes else size_of(reading.graph, source),
        strides=pair(node, "strides"),
        bias=False,
    )
    reading.place(node, geometry)
