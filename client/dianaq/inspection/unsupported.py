"""The operations of a graph that no core computes: all are counted, and the one that says most is explained."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import onnx

from dianaq.errors import UnsupportedOperator
from dianaq.inspection.activations import Activations
from dianaq.inspection.network import Node, nodes_of
from dianaq.inspection.operators import SUPPORTED_OPERATORS
from dianaq.inspection.refusals import ATTENTION, GATE, PER_SAMPLE_NORM, Refusal, rank, refusal_of_operator, shown
from dianaq.inspection.substitution import GATES

_LISTED = 5
"""Kinds of operations that a message lists beside the one that it explains."""

_STEPS = 8
"""Operations between an attention's Softmax and what it multiplies: casts, dropouts, transposes."""

_PASSED = frozenset({"Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Where"})
"""Operators that only pass an attention's weights on."""


@dataclass(frozen=True)
class Unsupported:
    """Something that no core computes.

    Args:
        node: its name.
        what: what it is: its operator, or what several write out.
        refusal: why, and what would work.
    """

    node: str
    what: str
    refusal: Refusal


def refuse(found: Iterable[Unsupported]) -> None:
    """Refuse a network that has any of these.

    Raises:
        UnsupportedOperator: explains the first of those that say what kind of network it is, else the first of all;
            counts the others.
    """
    ranked = sorted(found, key=lambda one: rank(one.refusal))
    if not ranked:
        return
    first, *others = ranked
    counts = Counter(shown(one.what) for one in others).most_common()
    listed = [what if count == 1 else f"{what} ({count})" for what, count in counts[:_LISTED]]
    if (left := len(counts) - _LISTED) > 0:
        listed.append(f"{left} other kind{'s' * (left > 1)}")
    more = f". And {len(others)} more that no core computes: {', '.join(listed)}" if others else ""
    raise UnsupportedOperator(
        f"node {shown(first.node)!r} ({shown(first.what)}): {first.refusal}{more}", param=first.node
    )


def check_operators(
    nodes: Sequence[Node], constants: Collection[str], activations: Activations, own: Collection[str]
) -> None:
    """Refuse an ONNX graph of operators that have no counterpart on the chip.

    Args:
        constants: names of the tensors that are.
        activations: those that no core computes, which a job may substitute; gates are refused.
        own: operators that installed packages bring (`own_operators`).

    Raises:
        UnsupportedOperator: names the node whose operator says most, and what would work.
    """
    computed = {name for node in nodes for name in (*node.inputs, *node.outputs) if name and name not in constants}
    known = written_out(nodes, computed) | ({} if "Mul" in own else gates(activations, nodes, constants))
    passed = activations.inner | activations.written.keys() - known.keys()
    found: list[Unsupported] = []
    for node in nodes:
        if node.operator in own or node.name in passed:
            continue
        if node.name in known:
            found += [one] if (one := known[node.name]) is not None else []
        elif node.operator not in SUPPORTED_OPERATORS:
            found.append(Unsupported(node.name, node.operator, refusal_of_operator(node.operator)))
    refuse(found)


def check_kind(model: onnx.ModelProto) -> None:
    """Refuse a model for the kind of network that it is, before anything is known to hang together in it.

    Raises:
        UnsupportedOperator: names the node.
    """
    nodes = nodes_of(model.graph)
    refuse(
        Unsupported(node.name, node.operator, refusal)
        for node in nodes
        if node.operator not in SUPPORTED_OPERATORS and (refusal := refusal_of_operator(node.operator)).whole
    )


def gates(found: Activations, nodes: Sequence[Node], constants: Collection[str]) -> dict[str, Unsupported | None]:
    """The gates of squeeze-and-excitation blocks, which no substitution helps; by node as in `written_out`."""
    parts = found.inner | found.written.keys()
    possible = {node.outputs[0]: node for node in nodes if found.kinds.get(node.name) in GATES}
    result: dict[str, Unsupported | None] = {}
    for node in nodes:
        computed = [name for name in node.inputs if name not in constants]
        if node.operator == "Mul" and node.name not in parts and len(computed) == 2:
            for gate in (possible[name] for name in computed if name in possible):
                result |= {node.name: None, gate.name: Unsupported(gate.name, gate.operator, GATE)}
    return result


def written_out(nodes: Sequence[Node], computed: Collection[str]) -> dict[str, Unsupported | None]:
    """Attention and normalisation by statistics of a sample, where a graph writes them out.

    Args:
        nodes: of ONNX, or of another graph by the names of ONNX's operators.
        computed: the tensors that are no constants.

    Returns:
        By node; None for one that is but a part.
    """
    graph = _Graph(nodes)
    found: dict[str, Unsupported | None] = {}
    for node in nodes:
        operands = [name for name in node.inputs if name in computed]
        if node.operator in ("MatMul", "Einsum") and len(operands) > 1:
            if any(graph.is_softmax(name) for name in operands):
                found[node.name] = Unsupported(node.name, "attention", ATTENTION)
        elif parts := graph.normalisation(node):
            found |= {part.name: None for part in parts}
            found[node.name] = Unsupported(node.name, "a normalisation written out", PER_SAMPLE_NORM)
    return found


class _Graph:
    """Who makes and who reads a tensor."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.made = {output: node for node in nodes for output in node.outputs if output}
        self.read = defaultdict[str, list[Node]](list)
        for node in nodes:
            for name in node.inputs:
                self.read[name].append(node)

    def is_softmax(self, name: str) -> bool:
        """Whether a tensor is what a Softmax gives, in whatever shape."""
        for _ in range(_STEPS):
            node = self.made.get(name)
            if node is None or node.operator == "Softmax":
                return node is not None
            if node.operator not in _PASSED:
                return False
            name = next((source for source in reversed(node.inputs) if source in self.made), "")
        return False

    def normalisation(self, node: Node) -> list[Node]:
        """The nodes of `(x - mean) / sqrt(mean((x - mean)^2) + eps)` whose square root this one is, if it is one."""
        if node.operator not in ("Sqrt", "Pow"):
            return []
        epsilon = self._before(node, "Add")
        mean = self._before(epsilon or node, "ReduceMean")
        square = mean and self._before(mean, "Pow", "Mul", "Square")
        if mean is None or square is None:
            return []
        centred = self._before(square, "Sub")
        inverse = [reader for reader in self.read[node.outputs[0]] if reader.operator == "Reciprocal"]
        divided = [reader for root in (node, *inverse) for reader in self.read[root.outputs[0]]]
        parts = [epsilon, mean, square, centred, centred and self._before(centred, "ReduceMean"), *inverse]
        parts += [reader for reader in divided if reader.operator in ("Div", "Mul")]
        return [part for part in parts if part is not None]

    def _before(self, node: Node, *operators: str) -> Node | None:
        """The node of one of these operators that another one reads."""
        sources = [self.made[name] for name in node.inputs if name in self.made]
        return next((source for source in sources if source.operator in operators), None)
