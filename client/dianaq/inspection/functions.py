"""Functions that a model brings along: its nodes may call them, as exporters that keep the modules of a network do."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx.inliner import inline_local_functions

from dianaq.errors import InvalidModel
from dianaq.inspection.structure import MAX_NODES

Key = tuple[str, str]
"""Domain and name of a function."""

MAX_DEPTH = 32
"""Of functions that call functions; modules of networks lie inside one another to a depth of ten or so."""


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model in which the calls of its own functions are their nodes.

    Raises:
        InvalidModel: they call one another in a circle or too deeply, or there would be too many nodes.
    """
    total = _Counter(model).size(model.graph.node, ())
    if total > MAX_NODES:
        raise InvalidModel(f"the graph has {total:,} nodes, functions written out; at most {MAX_NODES:,} are accepted")
    if model.functions:
        inlined: onnx.ModelProto = inline_local_functions(model)
        return inlined
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


class _Counter:
    """Counts nodes before they are written out: functions that call others twice grow by powers of two."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.sizes: dict[Key, int] = {}

    def size(self, nodes: Iterable[onnx.NodeProto], callers: tuple[Key, ...]) -> int:
        return sum(self._size_of(n, callers) for n in nodes)

    def _size_of(self, node: onnx.NodeProto, callers: tuple[Key, ...]) -> int:
        key = (node.domain, node.op_type)
        if key not in self.functions:
            return 1
        if key in callers or len(callers) >= MAX_DEPTH:
            why = "calls itself" if key in callers else f"is called through more than {MAX_DEPTH} others"
            raise InvalidModel(f"function {key[1]!r} of the model {why}", param=key[1])
        if key not in self.sizes:
            self.sizes[key] = self.size(self.functions[key].node, (*callers, key))
        return self.sizes[key]
