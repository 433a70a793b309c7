"""Tensors that a traced network reads from its module instead of computing them."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, fx, nn

from dianaq_quant.editors.canonicalise.traced_call import Call, operation


def constant(call: Call, value: object) -> Tensor | None:
    """A parameter or buffer that is given as an argument; None where none is.

    Raises:
        UnsupportedOperator: the argument is computed while the network runs.
    """
    if value is None:
        return None
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        raise call.refuse(
            "its weight, bias or statistics are computed while the network runs; a parameter or buffer of a module "
            "would work (compute it once, before the import)"
        )
    tensor = reduce(getattr, str(value.target).split("."), call.network)
    assert isinstance(tensor, Tensor)
    return tensor


def number_or_tensor(call: Call, value: object) -> Tensor:
    """A number, parameter or buffer that is given as an argument, as a tensor.

    Raises:
        UnsupportedOperator: it is computed while the network runs.
    """
    if isinstance(value, int | float):
        return torch.tensor(float(value), dtype=torch.float64)
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        raise call.refuse(
            f"it reads {operation(call.network, value) if isinstance(value, fx.Node) else repr(value)}, which is no "
            "tensor of the samples, but computed while the network runs; a number, or a parameter or buffer of a "
            "module, would work"
        )
    tensor = constant(call, value)
    assert tensor is not None
    return tensor


def parameter(tensor: Tensor) -> nn.Parameter:
    """The tensor itself if it is a parameter, so that layers which share it go on sharing it; else a copy."""
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach().clone().to(torch.float32))


def lifted(call: Call, weight: Tensor) -> nn.Parameter:
    """A 1-d kernel (O, I, K) as a 2-d one (O, I, 1, K): the same parameter for all calls that read the same kernel."""
    made: dict[Tensor, nn.Parameter] = call.network.meta.setdefault("lifted", {})
    if weight not in made:
        made[weight] = nn.Parameter(weight.detach().clone().unsqueeze(2), requires_grad=weight.requires_grad)
    return made[weight]


def shared_note(value: object) -> str:
    """A note on a tensor that several calls read."""
    if not isinstance(value, fx.Node) or len(value.users) < 2:
        return ""
    return f"its weight {value.target} is read by other calls too: both keep the same parameters"
