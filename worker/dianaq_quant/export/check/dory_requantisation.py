"""DORY's two forms of a requantisation: `Mul(0-d 1.0) -> Div -> Floor -> Clip`, and with k and l per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dianaq_quant.export.check.findings import Log
from dianaq_quant.export.check.graph import Array, Graph, Node, extremes_of, fraction_in, power_of_two
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, MAX_SHIFT
from dianaq_quant.targets.diana.placement import CLIPS
from dianaq_quant.targets.diana.rules import Rule

FORM = Rule(
    "dory.requantisation",
    "rejected",
    "digital: Mul(0-d 1.0) -> Div(2^s) -> Floor -> Clip; analog / per-channel: Mul(C,1,1) -> Add(C,1,1) -> Div -> "
    "Floor -> Clip",
)
MAX_MIN = Rule("dory.max-min", "rejected", "DORY rejects Max/Min and needs Clip with attributes")
MUL = Rule("dory.mul", "rejected", "digital: Mul by a 0-d 1.0")
PER_CHANNEL = Rule("dory.per-channel", "rejected", "k and l have the shape (C,1,1)")
DIVISOR = Rule("dory.divisor", "rejected", "the divisor is a scalar 2^n, n >= 0")
SHIFT = Rule("dory.shift", "wrong", "one scalar shift n in 0..31 for the whole layer")
CLIP = Rule("dory.clip-attributes", "rejected", "Clip{min, max, out_bits=8}")
CLIP_RANGE = Rule("dory.clip-range", "wrong", "ReLU output is [0, 127], without ReLU [-128, 127]")
INTEGERS = Rule("dory.integers", "wrong", "every tensor is float32 holding integers; k and l fit BNRelu_bits 32")

_PARTS = frozenset({"Mul", "Add", "Div", "Floor", "Round", "Ceil", "Relu", "Max", "Min", "Clip"})
"""Operators that can only be meant as a part of a requantisation, when they follow an accumulator."""

_DIGITAL = ["Mul", "Div", "Floor", "Clip"]
_PER_CHANNEL = ["Mul", "Add", "Div", "Floor", "Clip"]


@dataclass(frozen=True)
class Form:
    """What was recognised: the tensor it writes, whether it has constants per channel, its bounds and its shift (None
    where they cannot be made out), and the extremes of k and l."""

    output: str
    per_channel: bool
    clip: tuple[int, int] | None
    shift: int | None
    constants: tuple[int, int] | None


def requantisation(graph: Graph, log: Log, layer: Node, tensor: str) -> Form:
    """Recognise what follows an accumulator, and report everything about it that DORY does not take."""
    nodes = _parts(graph, tensor)
    graph.take(*nodes)
    ops = [node.op for node in nodes]
    if "Max" in ops or "Min" in ops:
        log.add(MAX_MIN, layer.name, f"it is requantised by {' -> '.join(ops)}")
    elif ops not in (_DIGITAL, _PER_CHANNEL):
        log.add(FORM, layer.name, f"it is requantised by {' -> '.join(ops) or 'nothing'}")
    per_channel = "Add" in ops
    by_op = {node.op: node for node in nodes}
    scaling = []
    for op in ("Mul", "Add"):
        constant = _constant(graph, by_op[op]) if op in by_op else None
        if constant is not None:
            _scaling(log, layer, op, constant, per_channel, _channels(graph, tensor))
            scaling.append(constant)
    shift = _shift(log, layer, _constant(graph, by_op["Div"])) if "Div" in by_op else None
    clip = _clip(log, layer, by_op["Clip"]) if "Clip" in by_op else None
    constants = extremes_of(scaling) if per_channel else None
    return Form(nodes[-1].output if nodes else tensor, per_channel, clip, shift, constants)


def _parts(graph: Graph, tensor: str) -> list[Node]:
    """The nodes after a tensor that are meant as its requantisation: up to a Clip, or to the second of Max and Min."""
    found: list[Node] = []
    for node in graph.chain(tensor, len(_PARTS)):
        if node.op not in _PARTS or any(node.op == earlier.op for earlier in found):
            break
        if node.op in ("Add", "Mul") and _constant(graph, node) is None:
            break
        found.append(node)
        if node.op == "Clip" or {"Max", "Min"} <= {n.op for n in found}:
            break
    return found


def _constant(graph: Graph, node: Node) -> Array | None:
    found = [graph.constant(node, i) for i in (1, 0)]
    return found[0] if found[0] is not None else found[1]


def _channels(graph: Graph, tensor: str) -> int:
    shape = graph.shape(tensor)
    return shape[1] if shape is not None and len(shape) > 1 else 0


def _scaling(log: Log, layer: Node, op: str, constant: Array, per_channel: bool, channels: int) -> None:
    """The constant of a Mul or an Add."""
    fraction, largest = fraction_in(constant), float(np.abs(constant).max(initial=0))
    if fraction is not None or largest >= ACCUMULATOR_LIMIT:
        log.add(INTEGERS, layer.name, f"{op} by {largest if fraction is None else fraction}")
    if per_channel:
        if constant.shape != (channels, 1, 1):
            log.add(PER_CHANNEL, layer.name, f"{op} has a constant of shape {list(constant.shape)}")
    elif constant.ndim or float(constant) != 1.0:
        what = f"of shape {list(constant.shape)}" if constant.ndim else f"{float(constant):g}"
        log.add(MUL, layer.name, f"{op} has the constant {what}")


def _shift(log: Log, layer: Node, divisor: Array | None) -> int | None:
    if divisor is None or divisor.size != 1:
        log.add(
            DIVISOR, layer.name, "it is divided by " + ("no constant" if divisor is None else f"{divisor.size} values")
        )
        return None
    value = float(divisor.flat[0])
    places = power_of_two(value)
    if places is None or places < 0:
        log.add(DIVISOR, layer.name, f"it is divided by {value}")
        return None
    if places > MAX_SHIFT:
        log.add(SHIFT, layer.name, f"it is shifted by {places} places")
    return places


def _clip(log: Log, layer: Node, node: Node) -> tuple[int, int] | None:
    found = [node.attributes.get(key) for key in ("min", "max")]
    bits = node.attributes.get("out_bits")
    if not all(isinstance(value, float) for value in found) or not isinstance(bits, int) or bits != 8:
        message = ", ".join(f"{k} is {node.attributes.get(k, 'missing')}" for k in ("min", "max", "out_bits"))
        log.add(CLIP, layer.name, message)
    if any(value is None for value in found):
        return None
    lo, hi = (float(value) for value in found if value is not None)
    if (lo, hi) not in CLIPS:
        log.add(CLIP_RANGE, layer.name, f"it clips to [{lo:g}, {hi:g}]")
    return (int(lo), int(hi)) if np.isfinite([lo, hi]).all() else None
