"""What is known of an HTVM file while its layers are read, and what all kinds of layer have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dianaq_quant.export.check.findings import Log
from dianaq_quant.export.check.graph import Array, Graph, Node, fraction_in
from dianaq_quant.export.check.htvm_requantisation import INTEGERS, Requantisation, requantisation
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, INT8
from dianaq_quant.targets.diana.placement import LayerGeometry, htvm_faults
from dianaq_quant.targets.diana.rules import Fault, Rule

PARAMETERS = Rule("htvm.parameters", "rejected", "weights and biases are float32 initialisers")
WEIGHT_RANGE = Rule(
    "htvm.weight-range", "wrong", "weights and biases are cast to int8 and int32 without any range check"
)


@dataclass
class Reading:
    """The graph, what was found in it, the tensors known to hold int8 with their bounds, and the outputs of the
    requantisations of additions."""

    graph: Graph
    log: Log
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    sums: set[str] = field(default_factory=set)

    def requantised(self, node: Node, tensor: str) -> Requantisation | None:
        """The requantisation of a layer's accumulator."""
        result = requantisation(self.graph, self.log, tensor, node.name)
        if result is not None:
            self.ranges[result.output] = result.clip
        return result

    def place(self, node: Node, geometry: LayerGeometry, faults: Sequence[Fault] = ()) -> None:
        """Enter a layer, with what follows from its geometry and with faults found otherwise."""
        found = [*faults, *htvm_faults(geometry)]
        if faults:  # a CPU runs it, which has none of the accelerators' hazards
            found = [fault for fault in found if fault.rule.severity != "wrong"]
        self.log.layer(node.name, geometry, found, wrong_is_off=False)

    def weight(self, node: Node) -> Array | None:
        """The weight of a layer: int8 integers."""
        return self._parameter(node, 1, INT8.lo, INT8.hi)

    def bias(self, node: Node, index: int = 2) -> bool:
        """Whether a node has a bias of one dimension: int32 integers."""
        value = self._parameter(node, index, -ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT - 1)
        return value is not None and value.ndim == 1

    def constant(self, node: Node, index: int) -> Array | None:
        """A constant, which must hold integers."""
        value = self.graph.constant(node, index)
        if value is not None and (fraction := fraction_in(value)) is not None:
            self.log.add(INTEGERS, node.name, f"{node.inputs[index]!r} holds {fraction}")
        return value

    def adds_constant(self, node: Node) -> bool:
        """Whether it is an Add of a constant."""
        return node.op == "Add" and any(self.graph.constant(node, i) is not None for i in (0, 1))

    def _parameter(self, node: Node, index: int, lo: int, hi: int) -> Array | None:
        value = self.constant(node, index)
        if value is None:
            return None
        name = node.inputs[index]
        if name not in self.graph.initialisers or value.dtype != np.float32:
            kind = "an initialiser" if name in self.graph.initialisers else "a Constant"
            self.log.add(PARAMETERS, node.name, f"{name!r} is {kind} of {value.dtype}")
        # As Python's floats: float32 would round the upper end of int32 to one more.
        if value.size and (float(value.min()) < lo or float(value.max()) > hi):
            message = f"{name!r} reaches from {value.min():g} to {value.max():g}, beyond [{lo}, {hi}]"
            self.log.add(WEIGHT_RANGE, node.name, message)
        return value
