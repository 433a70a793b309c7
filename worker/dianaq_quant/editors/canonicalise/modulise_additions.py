"""Additions in every spelling become modules."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.structure import Add


def add(call: Call, input: object, other: object, *, alpha: object = 1) -> Chain:
    """`input + alpha * other`, of two tensors of one shape; `0 + x`, as `sum([x, y])` starts, is x."""
    for constant, tensor in ((input, other), (other, input)):
        if isinstance(constant, int | float) and constant == 0 and isinstance(tensor, fx.Node):
            call.shape(tensor)
            return Chain((tensor,))
    if not (_per_sample(input) and _per_sample(other)):
        raise call.refuse(
            "it adds a constant, which no layer of the chip does; give it to a layer before it as the bias, and leave "
            "a normalisation of the input to the dataset's settings"
        )
    if alpha != 1:
        raise call.refuse(f"alpha = {alpha}; the chip adds integers of one scale, alpha = 1 would work")
    shapes = call.shape(input), call.shape(other)
    if shapes[0] != shapes[1]:
        raise call.refuse(f"its inputs have the shapes {shapes[0]} and {shapes[1]}; two of one shape would work")
    assert isinstance(input, fx.Node)
    assert isinstance(other, fx.Node)
    return Chain((input, other), (Add(),))


def _per_sample(value: object) -> bool:
    return isinstance(value, fx.Node) and "shape" in value.meta


class ModuliseAdditions(CallEditor):
    """`a + b -> Add()(a, b)`."""

    readers: ClassVar[Mapping[Any, Reader]] = dict.fromkeys(
        (operator.add, operator.iadd, torch.add, "add", "add_"), add
    )
