"""Maxima over the map become max pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.structure import Flatten, MaxPool2d


def amax(call: Call, input: fx.Node, dim: Any = (), keepdim: bool = False) -> Chain:
    size = call.map_shape(input)
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if {d % 4 for d in dims} != {2, 3}:
        raise call.refuse(f"the maximum over dimensions {dim}; over both spatial dimensions, (2, 3), would work")
    pool = MaxPool2d(size, (1, 1), (0, 0, 0, 0))
    return Chain((input,), (pool,) if keepdim else (pool, Flatten()))


class ModuliseMaxima(CallEditor):
    """`x.amax((2, 3)) -> Flatten()(MaxPool2d((H, W), ...)(x))`."""

    readers: ClassVar[Mapping[Any, Reader]] = {torch.amax: amax, "amax": amax}
