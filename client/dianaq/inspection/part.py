"""A part of a network, cut out between two of its tensors: one head of two, or what lies behind a pre-processing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx
from onnx import numpy_helper

from dianaq.errors import InvalidSpec
from dianaq.inspection.network import Node
from dianaq.inspection.tensors import Survey, survey
from dianaq.schemas.spec import NetworkPart

SHOWN = 5
"""How many names an error lists."""


def cut(model: onnx.ModelProto, part: NetworkPart) -> onnx.ModelProto:
    """The model of a part: its input is the tensor `part.from_`, its output the tensor `part.to`.

    Constants that follow from shapes are computed before, so that no way leads around `from_` through them. A dynamic
    batch is fixed. Names of nodes and tensors stay.

    Args:
        model: parsed; it is not changed.
        part: an end that is left out is the network's own.

    Raises:
        InvalidSpec: an end is no tensor of the graph, the one does not follow from the other (alone), or the shape of
            `from_` is not known; says what would be accepted.
        InvalidModel: see `survey`.
    """
    found = survey(model)
    ends = _Ends(found)
    sink = ends.output(part.to)
    source = None if part.from_ is None else ends.input(part.from_)
    if source == sink:
        raise InvalidSpec(f"part.from and part.to are both the tensor {sink!r}: there is nothing between", param="part")
    kept, entered = _between(found, source, sink)
    source = _entrance(found, source, sink, entered)
    return _model(found, kept, source, sink)


@dataclass
class _Ends:
    """What the names of a part mean."""

    found: Survey
    nodes: dict[str, Node] = field(init=False)
    tensors: list[str] = field(init=False)

    def __post_init__(self) -> None:
        computed = self.found.computed()
        self.nodes = {node.name: node for node in computed}
        self.tensors = [name for node in computed for name in node.outputs if name]

    def output(self, name: str | None) -> str:
        """The tensor that a part ends with: named, or the one output of a named node."""
        if name is None:
            outputs: list[str] = [value.name for value in self.found.model.graph.output]
            if len(outputs) == 1:
                return outputs[0]
            raise InvalidSpec(
                f"the network has {len(outputs)} outputs: {_list(outputs)}; part.to must name one of them, or another "
                "tensor",
                param="part.to",
            )
        if name in self.found.inputs:
            raise InvalidSpec(f"part.to is {name!r}, an input of the network: nothing comes before it", param="part.to")
        if name in self.tensors:
            return name
        if name not in self.nodes:
            raise self._unknown("to", name, self.tensors)
        outputs = [output for output in self.nodes[name].outputs if output]
        if len(outputs) != 1:
            raise InvalidSpec(
                f"part.to is the node {name!r}, which has {len(outputs)} outputs; name one of them: {_list(outputs)}",
                param="part.to",
            )
        return outputs[0]

    def input(self, name: str) -> str:
        """The tensor that a part begins with: named, or the one input of a named node that is no constant."""
        tensors = [*self.found.inputs, *self.tensors]
        if name in tensors:
            return name
        if name not in self.nodes:
            raise self._unknown("from", name, tensors)
        inputs = [i for i in dict.fromkeys(self.nodes[name].inputs) if i and i not in self.found.constants]
        if len(inputs) != 1:
            raise InvalidSpec(
                f"part.from is the node {name!r}, which has {len(inputs)} inputs; name one of them: {_list(inputs)}",
                param="part.from",
            )
        return inputs[0]

    def _unknown(self, end: str, name: str, tensors: list[str]) -> InvalidSpec:
        if name in self.found.constants:
            return InvalidSpec(
                f"part.{end} is {name!r}, a constant; name a tensor that is computed from the input",
                param=f"part.{end}",
            )
        close = difflib.get_close_matches(name, [*tensors, *self.nodes], SHOWN) or tensors[-SHOWN:]
        return InvalidSpec(
            f"part.{end} is {name!r}, which is no tensor of the network, nor a node; did you mean {_list(close)}? "
            "`dianaq inspect` lists all",
            param=f"part.{end}",
        )


def _between(found: Survey, source: str | None, sink: str) -> tuple[list[onnx.NodeProto], list[str]]:
    """The nodes that `sink` follows from, up to `source` and the inputs; and which of these it reaches."""
    wanted, kept = {sink}, []
    for node in reversed(found.nodes):
        wanted.discard(source or "")
        if wanted.intersection(node.output) - {""}:
            # Twice the same tensor is no reason to look for it again.
            wanted.update(node.input)
            kept.append(node)
    read = {name for node in kept for name in node.input}
    entered = [name for name in (*found.inputs, source) if name is not None and name in read]
    return kept[::-1], list(dict.fromkeys(entered))


def _entrance(found: Survey, source: str | None, sink: str, entered: list[str]) -> str:
    """The one tensor that a part begins with."""
    if source is not None:
        if source not in entered:
            raise InvalidSpec(
                f"part.from is {source!r}, but {sink!r} does not follow from it; name a tensor before {sink!r}",
                param="part.from",
            )
        others = [name for name in entered if name != source]
        if others:
            raise InvalidSpec(
                f"{sink!r} follows from {source!r} and, on another way, from {_list(others)}; part.from must be a "
                "tensor through which all ways lead",
                param="part.from",
            )
        return source
    if len(entered) != 1:
        what = _list(entered) if entered else "no input"
        raise InvalidSpec(
            f"{sink!r} follows from {what}; a network has one input: name a tensor behind them as part.from, or "
            "another part.to",
            param="part.from",
        )
    return entered[0]


def _model(found: Survey, kept: list[onnx.NodeProto], source: str, sink: str) -> onnx.ModelProto:
    whole = found.model
    result = onnx.ModelProto(ir_version=whole.ir_version, opset_import=whole.opset_import)
    graph = result.graph
    graph.name = whole.graph.name or "part"
    graph.input.append(_input(found, source))
    kind = found.types[sink].tensor_type.elem_type if sink in found.types else onnx.TensorProto.FLOAT
    graph.output.append(onnx.helper.make_tensor_value_info(sink, kind, None))
    graph.node.extend(kept)
    for name in dict.fromkeys(name for node in kept for name in node.input):
        if name in found.constants:
            graph.initializer.append(numpy_helper.from_array(found.constants[name], name))
    return result


def _input(found: Survey, source: str) -> onnx.ValueInfoProto:
    """The declaration of a part's input."""
    if source in found.inputs:
        return found.inputs[source]
    dims = found.dims(source)
    if dims is None or None in dims:
        shape = "" if dims is None else f", as far as it is known {tuple('?' if d is None else d for d in dims)}"
        raise InvalidSpec(
            f"the shape of part.from, {source!r}, cannot be told from the file{shape}; name a later tensor, or export "
            "the network with fixed sizes (only the batch may be dynamic)",
            param="part.from",
        )
    if not dims or dims[0] != found.batch:
        raise InvalidSpec(
            f"part.from, {source!r}, has the shape {dims}, where the batch is {found.batch}; name a tensor whose first "
            "dimension is the batch",
            param="part.from",
        )
    return onnx.ValueInfoProto(name=source, type=found.types[source])


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(map(repr, names[:SHOWN])) or "none") + more
