"""Permutations of dimensions in every spelling become modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import fx

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.layout import permutation


def _chain(call: Call, input: fx.Node, order: Sequence[int]) -> Chain:
    """What brings the dimensions into an order, the batch being 0."""
    assert order[0] == 0, "what moves the samples has been refused by its shape"
    if list(order) == sorted(order):
        return Chain((input,))
    return Chain((input,), (permutation(call.shape(input), [d - 1 for d in order[1:]]),))


def permute(call: Call, input: fx.Node, *dims: Any) -> Chain:
    """`x.permute(0, 2, 3, 1)` and with one tuple of dimensions."""
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
    rank = _rank(call, input)
    if len(order) != rank:
        raise call.refuse(f"dimensions {tuple(order)} of a tensor of {rank}")
    return _chain(call, input, [d % rank for d in _numbers(call, order)])


def permute_function(call: Call, input: fx.Node, dims: Any) -> Chain:
    """`torch.permute(x, dims)`."""
    return permute(call, input, dims)


def transpose(call: Call, input: fx.Node, dim0: Any, dim1: Any) -> Chain:
    """`x.transpose(1, 2)` and its other names; of two dimensions."""
    rank = _rank(call, input)
    first, second = (d % rank for d in _numbers(call, (dim0, dim1)))
    order = list(range(rank))
    order[first], order[second] = order[second], order[first]
    return _chain(call, input, order)


def swap_axes(call: Call, input: fx.Node, axis0: Any, axis1: Any) -> Chain:
    """`x.swapaxes(1, 2)`."""
    return transpose(call, input, axis0, axis1)


def move(call: Call, input: fx.Node, source: Any, destination: Any) -> Chain:
    """`x.movedim(-1, 1)`, also of several dimensions."""
    rank = _rank(call, input)
    pair = (value if isinstance(value, tuple | list) else (value,) for value in (source, destination))
    from_, to = ([d % rank for d in _numbers(call, values)] for values in pair)
    rest = iter(d for d in range(rank) if d not in from_)
    of = dict(zip(to, from_, strict=True))
    return _chain(call, input, [of[d] if d in of else next(rest) for d in range(rank)])


def _rank(call: Call, input: fx.Node) -> int:
    return len(call.shape(input)) + 1


def _numbers(call: Call, values: Sequence[Any]) -> list[int]:
    return [int(call.number(value, "a dimension")) for value in values]


class ModulisePermutations(CallEditor):
    """`x.permute(...) -> Rearrange(...)(x)`; transposes and moves of dimensions alike."""

    readers: ClassVar[Mapping[Any, Reader]] = (
        {"permute": permute, torch.permute: permute_function}
        | dict.fromkeys(("transpose", "swapdims", torch.transpose, torch.swapdims), transpose)
        | dict.fromkeys(("swapaxes", torch.swapaxes), swap_axes)
        | dict.fromkeys(("movedim", "moveaxis", torch.movedim, torch.moveaxis), move)
    )
