"""Additions in every spelling become modules."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx

from dianaq_quant.editors.canonicalise.modulise_arithmetic import is_per_sample, weighted_sum
from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.structure import Add, ScaledAdd


def add(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Chain:
    """`input + alpha * other`; `0 + x`, as `sum([x, y])` starts, is x."""
    for constant, tensor in ((input, other), (other, input)):
        if isinstance(constant, int | float) and constant == 0 and isinstance(tensor, fx.Node):
            call.shape(tensor)
            return Chain((tensor,))
    factor = call.number(alpha, "alpha")
    chain = weighted_sum(call, input, other, factor)
    if factor == 1 and isinstance(chain.modules[0], ScaledAdd):
        return Chain(chain.sources, (Add(),))
    return chain


class ModuliseAdditions(CallEditor):
    """`a + b -> Add()(a, b)`, `x + c -> Affine(1, c)(x)`."""

    readers: ClassVar[Mapping[Any, Reader]] = dict.fromkeys(
        (operator.add, operator.iadd, torch.add, "add", "add_"), add
    )

    def takes(self, network: fx.GraphModule, node: fx.Node) -> bool:
        return is_per_sample(node)
