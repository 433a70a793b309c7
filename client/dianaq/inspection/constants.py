"""The constants of an ONNX graph: where they lie, their types, their values."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection.network import Node, values
from dianaq.inspection.operators import INTEGER_INPUTS

MAX_PARAMETERS = 16 * 2**20
"""16 Mi values are 64 MiB of float32, a hundred times what the chip's 512 kB of memory can hold as int8."""

_FLOAT = onnx.TensorProto.FLOAT
_CONSTANT_VALUES = ("value", "value_float", "value_floats", "value_int", "value_ints")


def type_name(elem_type: int) -> str:
    """`float16` for FLOAT16, and so on."""
    if elem_type not in onnx.TensorProto.DataType.values():
        return f"type {elem_type}"
    return str(onnx.TensorProto.DataType.Name(elem_type)).lower()


def constants_of(graph: onnx.GraphProto, nodes: tuple[Node, ...]) -> dict[str, onnx.TensorProto]:
    """Initialisers and the outputs of Constant nodes, by name. No data outside the file is ever looked for.

    Raises:
        InvalidModel: external or sparse data, two initialisers of one name, or too many values.
    """
    if graph.sparse_initializer:
        raise InvalidModel(
            f"initialiser {graph.sparse_initializer[0].values.name!r} is sparse; only dense ones are supported"
        )
    found: dict[str, onnx.TensorProto] = {}
    for tensor in graph.initializer:
        if tensor.name in found:
            raise InvalidModel(f"two initialisers are called {tensor.name!r}", param=tensor.name)
        found[tensor.name] = tensor
    for node in nodes:
        if node.operator == "Constant":
            found[node.outputs[0]] = _constant_node(node)
    total = 0
    for name, tensor in found.items():
        _refuse_external(name, tensor)
        total += math.prod(tensor.dims)
    if total > MAX_PARAMETERS:
        raise InvalidModel(f"the model has {total:,} parameters; at most {MAX_PARAMETERS:,} are accepted")
    return found


def _refuse_external(name: str, tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise InvalidModel(
            f"tensor {name!r} keeps its data in another file; save the model with all weights inside it "
            "(torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(path), path))",
            param=name,
        )
    if any(dim < 0 for dim in tensor.dims):
        raise InvalidModel(f"tensor {name!r} has a negative dimension: {list(tensor.dims)}", param=name)


def _constant_node(node: Node) -> onnx.TensorProto:
    kind = next((k for k in _CONSTANT_VALUES if k in node.attributes), None)
    if kind is None:
        raise UnsupportedOperator(
            f"node {node.name!r}: a Constant must hold a dense tensor of numbers "
            f"(one of {', '.join(_CONSTANT_VALUES)}), got {', '.join(node.attributes) or 'none'}",
            param=node.name,
        )
    value = node.attributes[kind]
    if isinstance(value, onnx.TensorProto):
        return value
    return onnx.numpy_helper.from_array(np.asarray(value, np.float32 if "float" in kind else np.int64))


def check_constants(nodes: tuple[Node, ...], constants: dict[str, onnx.TensorProto]) -> None:
    """Refuse weights that are not finite float32 values.

    Raises:
        InvalidModel: names the tensor, the node that takes it, and its type or the position of its NaN.
    """
    checked: set[str] = set()
    for node in nodes:
        for index, name in enumerate(node.inputs):
            integers = index in INTEGER_INPUTS.get(node.operator, ())
            if name not in constants or integers or name in checked:
                continue
            checked.add(name)
            tensor = constants[name]
            if tensor.data_type != _FLOAT:
                raise InvalidModel(
                    f"tensor {name!r} of node {node.name!r} is {type_name(tensor.data_type)}; weights must be float32",
                    param=name,
                )
            _refuse_nonfinite(name, tensor)


def _refuse_nonfinite(name: str, tensor: onnx.TensorProto) -> None:
    array = values(tensor)
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InvalidModel(f"weight {name!r} holds {array[where]} at {list(where)}", param=name)
