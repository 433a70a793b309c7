"""Constant folding: what a graph computes from constants and from the shapes of its tensors, computed beforehand.

Nodes are evaluated by onnx's own reference implementation, one after the other, and every output's size is known before
it is computed, so that a file made to blow up is refused by the node that would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TypeProto, numpy_helper
from onnx.reference.ops import load_op

from dianaq.errors import InvalidModel
from dianaq.inspection.constants import MAX_PARAMETERS

FOLDABLE = frozenset(
    (
        *("Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div", "Equal", "Exp"),
        *("Expand", "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual"),
        *("Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax"),
        *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "Sign", "Slice", "Split"),
        *("Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze", "Where"),
    )
)
"""Operators whose reference implementation takes time and memory in proportion to its operands and its result: shape
arithmetic, and arithmetic on weights. No products of matrices, no convolutions, no loops."""

MAX_FOLDED = 2 * MAX_PARAMETERS
"""Values of 4 bytes that folding may make in all (one of 8 bytes counts twice): every weight may be cast and
transposed. Shapes are nothing beside them."""

MAX_READ = 8 * MAX_FOLDED
"""Values that folding may read in all, as a reduction makes one of many: some tenths of a second."""

MAX_INDEX_VALUES = 64
"""Of a constant that shape inference is shown: shapes, axes, bounds and repeats have as many values as a tensor has
dimensions, of which numpy knows 64."""

Array = NDArray[Any]


@dataclass
class Folding:
    """A graph's tensors as far as they are known while its nodes are looked at in their order.

    `constants` are those whose values are known, by name; `types` the types of all others; `renamed` tells which
    constant stands for another of the same values.
    """

    opset: int
    constants: dict[str, Array] = field(default_factory=dict)
    types: dict[str, TypeProto] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    made: int = 0
    read: int = 0
    _known: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def take(self, node: onnx.NodeProto) -> bool:
        """Look at the next node: true if its outputs are constants now, so that it can go.

        Raises:
            InvalidModel: it is computed from constants, and cannot be, or would make too many values.
        """
        for index, name in enumerate(node.input):
            node.input[index] = self.renamed.get(name, name)
        inputs = [name for name in node.input if name]
        if node.op_type in ("Shape", "Size") and (shape := self.shape(inputs[0])) is not None:
            self._keep(node, (_shape_or_size(node, shape),))
            return True
        if node.op_type == "CastLike" and (kind := self._element_type(inputs[1])):
            node.op_type = "Cast"
            node.attribute.append(onnx.helper.make_attribute("to", kind))
            del node.input[1], inputs[1]
        constant = all(name in self.constants for name in inputs)
        if constant and node.op_type == "Identity":
            self.renamed[node.output[0]] = inputs[0]
            return True
        if not (constant and node.op_type in FOLDABLE):
            self.types.update(self._inferred(node))
            return False
        key = (node.op_type, *node.input, *sorted(a.SerializeToString().hex() for a in node.attribute))
        if key in self._known:
            self.renamed.update(zip(node.output, self._known[key], strict=True))
            return True
        self._check_size(node)
        self._keep(node, _evaluated(node, self.opset, [self.constants.get(name) for name in node.input]))
        self._known[key] = tuple(node.output)
        return True

    def _keep(self, node: onnx.NodeProto, arrays: Iterable[Array]) -> None:
        self.constants.update((name, array) for name, array in zip(node.output, arrays, strict=True) if name)

    def _check_size(self, node: onnx.NodeProto) -> None:
        """Raises `InvalidModel` unless a node's operands and outputs fit into what folding may still read and make."""
        inferred = self._inferred(node)
        types = [inferred.get(name) for name in node.output if name]
        sizes = [_size(found) for found in types]
        count = math.inf if None in sizes else sum(filter(None, sizes))
        self.made += int(min(sum(map(_words, types)), MAX_FOLDED + 1))
        if self.made > MAX_FOLDED:
            what = "a number of values that its inputs do not tell" if count == math.inf else f"{count:,} values"
            raise InvalidModel(
                f"node {node.name!r} ({node.op_type}) makes a constant of {what}; all constants of a graph together "
                f"may take {MAX_FOLDED:,} of 4 bytes to compute",
                param=node.name,
            )
        self.read += sum(self.constants[name].size for name in node.input if name)
        if self.read > MAX_READ:
            raise InvalidModel(
                f"node {node.name!r} ({node.op_type}) reads constants that others have read: to compute all constants "
                f"of a graph, {MAX_READ:,} values may be read",
                param=node.name,
            )

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor that was looked at; None where it is not known."""
        if name in self.constants:
            return self.constants[name].shape
        return _static_shape(self.types.get(name))

    def _element_type(self, name: str) -> int:
        """The type of a tensor's values; 0 if it is not known."""
        found = _type_of(self.constants[name]) if name in self.constants else self.types.get(name, TypeProto())
        return int(found.tensor_type.elem_type)

    def _inferred(self, node: onnx.NodeProto) -> dict[str, TypeProto]:
        """The types of a node's outputs, as far as onnx can tell."""
        types: dict[str, TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for name in filter(None, node.input):
            if name in self.constants:
                array = self.constants[name]
                types[name] = _type_of(array)
                if array.size <= MAX_INDEX_VALUES:
                    data[name] = numpy_helper.from_array(array, name)
            elif name in self.types:
                types[name] = self.types[name]
            else:
                return {}
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
            return dict(onnx.shape_inference.infer_node_outputs(schema, node, types, data))
        except (onnx.defs.SchemaError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            # Unknown operators and contradicting shapes are refused by name when the whole graph is looked at.
            return {}


def _evaluated(node: onnx.NodeProto, opset: int, inputs: list[Array | None]) -> tuple[Array, ...]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    try:
        with np.errstate(all="ignore"):  # an infinity is refused where a layer reads it
            found = load_op("", node.op_type, opset).eval(*inputs, n_outputs=len(node.output), **attributes)
        arrays = tuple(np.asarray(a) for a in (found if isinstance(found, tuple | list) else (found,)))
    except Exception as error:  # of many types, for operands that do not fit
        raise InvalidModel(
            f"node {node.name!r} ({node.op_type}) cannot be computed from its constants: "
            f"{' '.join(str(error).split())[:200]}",
            param=node.name,
        ) from None
    if len(arrays) != len(node.output):
        raise InvalidModel(
            f"node {node.name!r} ({node.op_type}) names {len(node.output)} outputs and has {len(arrays)}",
            param=node.name,
        )
    return arrays


def _shape_or_size(node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end")], np.int64)


def _type_of(array: Array) -> TypeProto:
    return onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _static_shape(found: TypeProto | None) -> tuple[int, ...] | None:
    if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
        return None
    dims = found.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def _size(found: TypeProto | None) -> int | None:
    shape = _static_shape(found)
    return None if shape is None else math.prod(shape)


def _words(found: TypeProto | None) -> float:
    """What a tensor takes, in values of 4 bytes; infinity where that is not known."""
    size = _size(found)
    if found is None or size is None:
        return math.inf
    dtype = onnx.helper.tensor_dtype_to_np_dtype(found.tensor_type.elem_type)
    return size * max(1, dtype.itemsize // 4)
