"""HTVM's one form of a requantisation: `Div(c) -> Floor -> Max(lo) -> Min(hi)`; anything else costs the whole model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dianaq_quant.export.check.findings import Log
from dianaq_quant.export.check.graph import Array, Graph, Node, fraction_in, power_of_two
from dianaq_quant.targets.diana import MAX_SHIFT
from dianaq_quant.targets.diana.rules import Rule

FORM = Rule(
    "htvm.requantisation",
    "rejected",
    "Requantisation is exactly Div(c) -> Floor -> Max(lo) -> Min(hi); Div may be left out (c = 1)",
)
CLIP = Rule("htvm.clip-operator", "rejected", "Clip instead of Max/Min: the whole model is rejected")
ORDER = Rule("htvm.min-before-max", "rejected", "Min before Max: the whole model is rejected")
ROUND = Rule("htvm.round", "rejected", "Round: the whole model is rejected; rounding goes into the bias (add c/2)")
FLOOR = Rule("htvm.floor", "rejected", "a missing Floor: the whole model is rejected")
HALF = Rule("htvm.half", "rejected", "+0.5: the whole model is rejected; rounding goes into the bias (add c/2)")
MUL = Rule("htvm.mul", "rejected", "Mul instead of Div: the whole model is rejected")
SECOND = Rule("htvm.constant-second", "rejected", "the constant as second operand")
DIVISOR_SHAPE = Rule(
    "htvm.divisor-shape",
    "rejected",
    "Div holds exactly one element with rank >= 1 (0-d and per-channel constants crash HTVM)",
)
DIVISOR = Rule("htvm.divisor", "rejected", "c = 2^k, 0 <= k <= 31; any other c: the whole model is rejected")
INTEGERS = Rule("htvm.integers", "wrong", "every tensor is float32 holding integers; they are cast without any check")

_PARTS = frozenset({"Div", "Mul", "Add", "Floor", "Round", "Ceil", "Relu", "Max", "Min", "Clip"})
"""Operators that can only be meant as a part of a requantisation, when they follow an accumulator."""


@dataclass(frozen=True)
class Requantisation:
    """What was recognised: the tensor it writes, its divisor, and its bounds."""

    output: str
    divisor: float
    lo: float
    hi: float

    @property
    def shift(self) -> int | None:
        """Places of the shift; None for a divisor that is none."""
        places = power_of_two(self.divisor)
        return places if places is not None and 0 <= places <= MAX_SHIFT else None

    @property
    def clip(self) -> tuple[int, int]:
        """The bounds as integers."""
        return int(self.lo), int(self.hi)


def requantisation(graph: Graph, log: Log, tensor: str, layer: str, *, shifts: bool = True) -> Requantisation | None:
    """Recognise the requantisation of a tensor, and report everything about it that HTVM does not take.

    Args:
        shifts: whether its divisor must be a power of two; the input's and a converter's need not.

    Returns:
        What it does, as far as it can be made out; None if it does not bound the tensor.
    """
    nodes = _parts(graph, tensor)
    graph.take(*nodes)
    _form(graph, log, tensor, layer, nodes)
    divisor, lo, hi = 1.0, None, None
    for node in nodes:
        if node.op == "Clip":
            lo, hi = clip_bounds(graph, node)
            continue
        constant = _operand(graph, log, layer, node)
        if constant is None:
            continue
        if node.op in ("Div", "Mul"):
            divisor = _divisor(log, layer, node, constant, shifts)
        elif (fraction := fraction_in(constant)) is not None:
            log.add(INTEGERS, layer, f"{node.op} has the bound {fraction}")
        elif constant.size == 1 and node.op == "Max":
            lo = float(constant.flat[0])
        elif constant.size == 1 and node.op == "Min":
            hi = float(constant.flat[0])
    if lo is None or hi is None:
        return None
    return Requantisation(nodes[-1].output, divisor, lo, hi)


def clip_bounds(graph: Graph, node: Node) -> tuple[float | None, float | None]:
    """Bounds of a Clip: attributes up to opset 10, inputs after that; None for one that is no finite number."""
    found = []
    for index, key in ((1, "min"), (2, "max")):
        constant = graph.constant(node, index)
        value = node.attributes.get(key) if constant is None or constant.size != 1 else constant.flat[0]
        found.append(None if value is None or not np.isfinite(value) else float(value))
    return found[0], found[1]


def _parts(graph: Graph, tensor: str) -> list[Node]:
    """The nodes after a tensor that are meant as its requantisation: up to a Clip, or to the second of Max and Min."""
    found: list[Node] = []
    for node in graph.chain(tensor, len(_PARTS)):
        if node.op not in _PARTS or any(node.op == earlier.op for earlier in found):
            break
        if node.op in ("Add", "Mul") and all(graph.constant(node, i) is None for i in (0, 1)):
            break
        found.append(node)
        if node.op == "Clip" or {"Max", "Min"} <= {n.op for n in found}:
            break
    return found


def _form(graph: Graph, log: Log, tensor: str, layer: str, nodes: list[Node]) -> None:
    """Compare the operators and their order to the one form."""
    ops = [node.op for node in nodes]
    if ops in (["Div", "Floor", "Max", "Min"], ["Floor", "Max", "Min"]):
        return
    named = len(log.findings)
    what = f"it is requantised by {' -> '.join(ops) or 'nothing'}"
    if "Clip" in ops:
        log.add(CLIP, layer, what)
    if "Max" in ops and "Min" in ops and ops.index("Min") < ops.index("Max"):
        log.add(ORDER, layer, what)
    if "Round" in ops or "Ceil" in ops:
        log.add(ROUND, layer, what)
    elif ops and "Floor" not in ops:
        log.add(FLOOR, layer, what)
    if "Add" in ops:
        log.add(HALF, layer, what)
    if "Mul" in ops:
        log.add(MUL, layer, what)
    if len(log.findings) == named:
        end = nodes[-1].output if nodes else tensor
        readers = [node.op for node in graph.readers(end)] + ["the output"] * (end in graph.outputs)
        log.add(FORM, layer, f"{what}, then read by {', '.join(readers) or 'nothing'}")


def _operand(graph: Graph, log: Log, layer: str, node: Node) -> Array | None:
    """The constant of a node of two operands."""
    first, second = graph.constant(node, 0), graph.constant(node, 1)
    if first is not None:
        log.add(SECOND, layer, f"{node.op} has its constant as first operand")
        return first
    return second


def _divisor(log: Log, layer: str, node: Node, constant: Array, shifts: bool) -> float:
    if constant.size != 1 or constant.ndim < 1:
        log.add(DIVISOR_SHAPE, layer, f"{node.op} has a constant of shape {list(constant.shape)}")
    value = float(constant.flat[0]) if constant.size else 0.0
    if node.op == "Mul":
        return 1 / value if value else 0.0
    exponents = [power_of_two(float(v)) for v in constant.flat]
    if shifts and any(e is None or not 0 <= e <= MAX_SHIFT for e in exponents):
        log.add(DIVISOR, layer, f"it is divided by {value}")
    return value
