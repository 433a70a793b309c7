"""Indices that leave out rows or columns of a map become modules."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.layout import of_line
from dianaq_quant.modules.structure import Slice2d


def index(call: Call, input: fx.Node, index: Any) -> Chain:
    """`x[:, :, ::2, ::2]`."""
    shape = call.shape(input)
    parts = [range(size)[part] for size, part in zip(shape, _parts(index, len(shape) + 1)[1:], strict=True)]
    columns, rows = parts[-1], parts[1] if len(shape) == 3 else range(1)
    module = Slice2d((rows.start, columns.start), (rows.step, columns.step), (len(rows), len(columns)))
    return Chain((input,), (module,) if len(shape) == 3 else of_line(shape, (module,), (shape[0], len(columns))))


def _parts(index: Any, rank: int) -> list[slice]:
    """An index as one slice per dimension; none at all if it is something else."""
    given = list(index) if isinstance(index, tuple | list) else [index]
    if ... in given:
        place = given.index(...)
        given[place : place + 1] = [slice(None)] * (rank - len(given) + 1)
    given += [slice(None)] * (rank - len(given))
    return given if len(given) == rank and all(isinstance(part, slice) for part in given) else []


class ModuliseSlices(CallEditor):
    """`x[:, :, a::s, b::t] -> Slice2d((a, b), (s, t), ...)(x)` of a map, where all samples and channels stay.

    `x[:, :, b::t]` of a line (C, L) as of a map of height 1. Other indices are left to `ModuliseReshapes`, which takes
    those that leave nothing out.
    """

    readers: ClassVar[Mapping[Any, Reader]] = {operator.getitem: index}

    def takes(self, network: fx.GraphModule, node: fx.Node) -> bool:
        source, *rest = node.args
        if not isinstance(source, fx.Node) or "shape" not in source.meta or not rest:
            return False
        shape = source.meta["shape"]
        parts = _parts(rest[0], len(shape) + 1)
        bounds = [bound for part in parts for bound in (part.start, part.stop, part.step)]
        if len(shape) not in (2, 3) or not parts or any(isinstance(bound, fx.Node) for bound in bounds):
            return False
        whole = parts[0] == slice(None) and range(shape[0])[parts[1]] == range(shape[0])
        return whole and tuple(node.meta["shape"]) != tuple(shape)
