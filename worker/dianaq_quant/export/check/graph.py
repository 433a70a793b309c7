"""An ONNX file as the checks read it: nodes with their attributes, constants, shapes, and who reads what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dianaq.inspection.external import join
from dianaq.inspection.model import parse_model
from dianaq.inspection.naming import node_names
from dianaq.inspection.network import values

Array = NDArray[Any]


@dataclass(frozen=True)
class Node:
    """A node. `index` is its place in the file."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    index: int

    @property
    def output(self) -> str:
        """Its first output; every operator of the dialects has one."""
        return self.outputs[0]


@dataclass(frozen=True)
class Graph:
    """The nodes in file order (constants apart), and what the checks look up."""

    path: Path
    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    initialisers: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, int]
    shapes: Mapping[str, tuple[int | None, ...]]
    """Every tensor's shape as far as it can be inferred; None for a dimension that is not fixed."""
    unknown_attributes: Mapping[str, tuple[str, ...]]
    """By node, the attributes that ONNX does not know."""
    error: str | None
    """What ONNX itself finds wrong with the file, those attributes aside."""
    shape_error: str | None
    """Which shapes contradict each other; then the inferred ones are few."""
    taken: set[int] = field(default_factory=set)
    """Indices of the nodes that were recognised as a part of something."""

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that writes a tensor."""
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def readers(self, tensor: str) -> list[Node]:
        """The nodes that read a tensor."""
        return self._readers.get(tensor, [])

    def next(self, tensor: str) -> Node | None:
        """The one node that reads a tensor; None if there are several, none, or it is an output too."""
        found = self.readers(tensor)
        return found[0] if len(found) == 1 and tensor not in self.outputs else None

    def chain(self, tensor: str, length: int) -> list[Node]:
        """The nodes that follow one another from a tensor, each the only reader of the one before."""
        found: list[Node] = []
        while len(found) < length and (node := self.next(tensor)) is not None:
            found.append(node)
            tensor = node.output
        return found

    def take(self, *nodes: Node) -> None:
        """Mark nodes as recognised."""
        self.taken.update(node.index for node in nodes)

    def constant(self, node: Node, index: int) -> Array | None:
        """The constant at an input of a node; None for an activation, and where there is none."""
        return self.constants.get(node.inputs[index]) if index < len(node.inputs) else None

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """A tensor's shape; None unless all of it is fixed."""
        found = self.shapes.get(tensor)
        if found is None or None in found:
            return None
        return tuple(d for d in found if d is not None)


def read_graph(path: Path) -> Graph:
    """Read a file, with the weights that it keeps in files beside it.

    Raises:
        InvalidModel: it is not ONNX, or its constants are damaged or lie in other folders.
    """
    model = parse_model(path)
    join(model, path)
    return graph_of(model, path)


def graph_of(model: onnx.ModelProto, path: Path) -> Graph:
    """The graph of a parsed file."""
    graph = model.graph
    nodes = [
        Node(
            name,
            node.op_type,
            tuple(node.input),
            tuple(node.output) or ("",),
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            index,
        )
        for index, (name, node) in enumerate(zip(node_names(graph), graph.node, strict=True))
    ]
    constants = {tensor.name: values(tensor) for tensor in graph.initializer}
    for node in nodes:
        value = node.attributes.get("value")
        if node.op == "Constant" and isinstance(value, onnx.TensorProto):
            constants[node.output] = values(value)
    initialisers = frozenset(tensor.name for tensor in graph.initializer)
    entries = [entry for entry in graph.input if entry.name not in initialisers]
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    plain, unknown = _plain(model, [n.name for n in nodes], opset)
    return Graph(
        path,
        opset,
        tuple(node for node in nodes if node.op != "Constant"),
        constants,
        initialisers,
        tuple(entry.name for entry in entries),
        tuple(entry.name for entry in graph.output),
        {e.name: e.type.tensor_type.elem_type for e in [*entries, *graph.output]},
        _shapes(plain),
        unknown,
        _error(plain, full=False),
        _error(plain, full=True),
    )


def _plain(model: onnx.ModelProto, names: list[str], opset: int) -> tuple[onnx.ModelProto, dict[str, tuple[str, ...]]]:
    """A copy without attributes that ONNX does not know, which both its checker and onnxruntime refuse."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    unknown = {}
    for name, node in zip(names, plain.graph.node, strict=True):
        if not onnx.defs.has(node.op_type, opset, node.domain):
            continue  # the checker has more to say about it
        known = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
        kept = [a for a in node.attribute if a.name in known]
        if len(kept) < len(node.attribute):
            unknown[name] = tuple(a.name for a in node.attribute if a.name not in known)
            del node.attribute[:]
            node.attribute.extend(kept)
    return plain, unknown


def _error(plain: onnx.ModelProto, *, full: bool) -> str | None:
    """What ONNX's own checker says, with its inference of shapes or without."""
    try:
        onnx.checker.check_model(plain, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return " ".join(str(error).split())[:400]
    return None


def _shapes(plain: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Shapes as ONNX infers them from the input's; what the file claims of inner tensors does not count."""
    bare = onnx.ModelProto()
    bare.CopyFrom(plain)
    del bare.graph.value_info[:]
    with suppress(onnx.shape_inference.InferenceError, ValueError):  # `Graph.shape_error` says so
        bare = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    graph = bare.graph
    found: dict[str, tuple[int | None, ...]] = {}
    for entry in [*graph.input, *graph.value_info, *graph.output]:
        tensor = entry.type.tensor_type
        if tensor.HasField("shape"):
            found[entry.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return found


def fraction_in(array: Array) -> float | None:
    """The first value that is no integer; None if all are."""
    flat = array.ravel()
    odd = ~np.isfinite(flat) | (flat != np.floor(flat))
    return float(flat[odd.argmax()]) if odd.any() else None


def extremes_of(arrays: Sequence[Array]) -> tuple[int, int] | None:
    """The smallest and the largest of some arrays' finite values, rounded outwards; None if there are none."""
    values = np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0)
    finite = values[np.isfinite(values)]
    return (math.floor(finite.min()), math.ceil(finite.max())) if finite.size else None


def power_of_two(value: float) -> int | None:
    """The exponent of a power of two."""
    mantissa, exponent = np.frexp(value)
    return int(exponent) - 1 if value > 0 and mantissa == 0.5 else None
