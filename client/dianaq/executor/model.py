"""An exported network that runs in integers, and what it gives for a batch."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dianaq.errors import InvalidDataset, InvalidModel, UnsupportedOperator
from dianaq.executor.arithmetic import Integers, fits
from dianaq.executor.call import Call, Value
from dianaq.executor.ends import Quantiser, find_exit, find_quantiser
from dianaq.executor.operators import OPERATORS
from dianaq.inspection.constants import constants_of
from dianaq.inspection.model import parse_model
from dianaq.inspection.naming import node_names
from dianaq.inspection.network import Node, values
from dianaq.inspection.structure import check_wiring

BATCH = 16
"""Samples that run at a time: enough for numpy's cost per call to vanish, and small maps stay in the cache."""


@dataclass(frozen=True)
class Execution:
    """What a network computes for a batch. The batch is the first dimension of every array.

    `output`, what the file itself gives, is float32 where it ends in real numbers; they are `logits * scale`.
    """

    tensors: dict[str, Integers]
    """Tensors that hold integers, int32, by their name in the file and in order of computation."""
    logits: Integers
    output: NDArray[Any]
    scale: float
    """Real value of one step of the logits; 1 where the file ends in integers."""


@dataclass(frozen=True)
class IntegerModel:
    """An exported network: nodes in order, constants, and both ends."""

    nodes: tuple[Node, ...]
    constants: dict[str, NDArray[Any]]
    input: str
    input_shape: tuple[int, ...]
    """Without the batch."""
    output: str
    quantiser: Quantiser | None
    """What makes integers of a float input; None where the network takes integers."""
    exit: tuple[Node, float] | None

    @property
    def entrance(self) -> str:
        """The first tensor of integers."""
        return self.input if self.quantiser is None else self.quantiser.output

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file cannot say of the chip, and its execution therefore leaves out."""
        analog = [n.name for n in self.nodes if n.operator == "Conv" and n.attributes.get("weight_bits") == 2]
        if not analog:
            return ()
        return (
            f"{', '.join(analog)}: weight_bits = 2 selects the analog core, whose converter DORY's dialect cannot "
            "express; the file is run as it is written, without it",
        )

    def run(self, x: NDArray[Any], *, quantised: bool = False, keep: Collection[str] | None = None) -> Execution:
        """Run the network as it is written.

        Args:
            x: (N, *input_shape) or one sample. Numbers of any type, of which a network without a quantiser takes
                integers only.
            quantised: x holds what the quantiser gives, and passes it by.
            keep: names of the tensors to return; all by default.

        Raises:
            InvalidDataset: x does not fit.
            InvalidModel: a node cannot be executed in integers; its message says what could.
            AccumulatorOverflow: names the node whose sum leaves 32 bits.
        """
        batch = self._batch(x)
        integers = _whole(batch) if quantised or self.quantiser is None else self.quantiser(batch)
        parts = [self._run(integers[i : i + BATCH], keep) for i in range(0, len(batch), BATCH)]
        tensors = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
        logits = np.concatenate([part[1] for part in parts])
        if self.exit is None:
            return Execution(tensors, logits, logits, 1.0)
        divisor = np.float32(self.exit[1])
        return Execution(tensors, logits, logits.astype(np.float32) / divisor, 1.0 / float(divisor))

    def _run(self, integers: Integers, keep: Collection[str] | None) -> tuple[dict[str, Integers], Integers]:
        found = {self.entrance: Value(integers)}
        passed = frozenset[str]() if self.quantiser is None else self.quantiser.nodes
        for node in self.nodes:
            if node.name in passed or node.operator == "Constant":
                continue
            call = Call(node, found, self.constants)
            is_exit = self.exit is not None and node is self.exit[0]
            try:
                found[node.outputs[0]] = Value(call.tensor()) if is_exit else OPERATORS[node.operator](call)
            except ValueError as error:  # numpy's, for shapes that do not go together
                raise call.refuse(f"has operands and attributes that do not go together: {error}") from None
        result = found[self.output]
        if result.divisor != 1:
            raise InvalidModel(
                f"the output {self.output!r} is a mean that {result.divided_by!r} makes, and no Floor follows it",
                param=result.divided_by,
            )
        real = () if self.exit is None else self._behind(self.exit[0].outputs[0])
        tensors = {
            name: value.integers
            for name, value in found.items()
            if value.divisor == 1 and name not in real and (keep is None or name in keep)
        }
        return tensors, result.integers

    def _behind(self, tensor: str) -> set[str]:
        """A tensor and all that is computed from it."""
        behind = {tensor}
        for node in self.nodes:
            if behind & set(node.inputs):
                behind |= set(node.outputs)
        return behind

    def _batch(self, x: NDArray[Any]) -> NDArray[Any]:
        if x.dtype.kind not in "iuf":
            raise InvalidDataset(f"the input is of type {x.dtype}; accepted are numbers")
        if x.shape == self.input_shape or x.shape == (math.prod(self.input_shape),):
            x = x.reshape(1, *self.input_shape)
        if x.shape[1:] != self.input_shape or len(x) == 0:
            raise InvalidDataset(
                f"the input has the shape {list(x.shape)}; accepted is {['N', *self.input_shape]}".replace("'", "")
            )
        return x


def load_model(path: str | os.PathLike[str]) -> IntegerModel:
    """An exported network from its file, of either dialect.

    Raises:
        InvalidModel: the file cannot be read, or is not a network of one input and one output.
        UnsupportedOperator: names the first node that is not known here, and what is.
    """
    return read_model(parse_model(path))


def read_model(model: onnx.ModelProto) -> IntegerModel:
    """An exported network from its parsed form; see `load_model`."""
    graph = model.graph
    nodes = tuple(_node(name, node) for name, node in zip(node_names(graph), graph.node, strict=True))
    tensors = constants_of(graph, nodes)
    inputs = [entry for entry in graph.input if entry.name not in tensors]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InvalidModel(f"the graph has {len(inputs)} inputs and {len(graph.output)} outputs; accepted is one each")
    shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    if len(shape) < 2 or min(shape[1:]) < 1 or shape[0] > 1:
        raise InvalidModel(
            f"input {inputs[0].name!r} has the shape {shape}; accepted is (1, ...) with fixed dimensions",
            param=inputs[0].name,
        )
    source, sink = inputs[0].name, graph.output[0].name
    check_wiring(nodes, tensors, [source], [sink])
    constants = {name: values(tensor) for name, tensor in tensors.items()}
    quantiser = find_quantiser(nodes, constants, source)
    return IntegerModel(nodes, constants, source, tuple(shape[1:]), sink, quantiser, find_exit(nodes, constants, sink))


def _node(name: str, node: onnx.NodeProto) -> Node:
    if node.domain not in ("", "ai.onnx") or node.op_type not in (*OPERATORS, "Constant"):
        raise UnsupportedOperator(
            f"node {name!r}: {node.domain or 'ONNX'} operator {node.op_type} is no operator of an exported network; "
            f"known are {', '.join(OPERATORS)}",
            param=name,
        )
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return Node(name, node.op_type, tuple(node.input), tuple(node.output), attributes)


def _whole(x: NDArray[Any]) -> Integers:
    """An input that is integers already."""
    if x.dtype.kind == "f" and not np.array_equal(x, np.floor(x)):
        bad = x[~(x == np.floor(x))].flat[0]
        raise InvalidDataset(
            f"the input holds {bad:g}, and integers are needed: the network has no quantiser, or is to pass it by"
        )
    if not fits(math.floor(x.min()), math.floor(x.max())):
        raise InvalidDataset("the input holds values beyond 32 bits")
    return x.astype(np.int32)
