"""Activation functions in every spelling become modules."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from dianaq.schemas.substitution import Activation
from dianaq_quant.editors.canonicalise.modulise_arithmetic import is_per_sample
from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.editors.canonicalise.traced_constants import constant, number_or_tensor, parameter
from dianaq_quant.modules.activations import activation
from dianaq_quant.modules.structure import bounded


def between(call: Call, input: fx.Node, lo: object, hi: object) -> Chain:
    """`min(max(x, lo), hi)`: a ReLU, with a ceiling if there is one; other bounds may become one with what is before.

    On the chip an activation is the clip of a requantisation, whose lower bound is 0 or the least integer.
    """
    call.shape(input)
    bounds = [None if bound is None else _number(call, bound) for bound in (lo, hi)]
    return Chain((input,), (bounded(*bounds),))


def _number(call: Call, value: object) -> float:
    """A bound: a number, or a constant tensor of one."""
    if not isinstance(value, fx.Node):
        return call.number(value, "a bound")
    values = number_or_tensor(call, value)
    if values.numel() == 0 or not bool((values == values.flatten()[0]).all()):
        raise call.refuse(f"a bound of shape {tuple(values.shape)} differs from value to value; one number would work")
    return float(values.flatten()[0])


def relu(call: Call, input: fx.Node, inplace: bool = False) -> Chain:
    return between(call, input, 0.0, None)


def relu6(call: Call, input: fx.Node, inplace: bool = False) -> Chain:
    return between(call, input, 0.0, 6.0)


def hardtanh(call: Call, input: fx.Node, min_val: object = -1.0, max_val: object = 1.0, inplace: bool = False) -> Chain:
    return between(call, input, min_val, max_val)


def hardtanh_module(call: Call, input: fx.Node) -> Chain:
    return between(call, input, call.module.min_val, call.module.max_val)


def clamp(call: Call, input: fx.Node, min: object = None, max: object = None) -> Chain:
    return between(call, input, min, max)


def clamp_max(call: Call, input: fx.Node, max: object) -> Chain:
    return between(call, input, None, max)


def minimum(call: Call, input: Any, other: Any) -> Chain:
    source, bound = (input, other) if is_per_sample(input) else (other, input)
    return between(call, source, None, bound)


def maximum(call: Call, input: Any, other: Any) -> Chain:
    source, bound = (input, other) if is_per_sample(input) else (other, input)
    return between(call, source, bound, None)


def plain(kind: Activation) -> Reader:
    """The reader of an activation without parameters."""

    def reader(call: Call, input: fx.Node, inplace: bool = False) -> Chain:
        call.shape(input)
        return Chain((input,), (activation(kind, {}),))

    return reader


def scaled(kind: Activation, default: float) -> Reader:
    """The reader of an activation with one parameter, `alpha` (`negative_slope` of a leaky ReLU)."""

    def reader(
        call: Call, input: fx.Node, alpha: object = default, inplace: bool = False, negative_slope: object = None
    ) -> Chain:
        call.shape(input)
        value = alpha if negative_slope is None else negative_slope
        return Chain((input,), (activation(kind, {"alpha": call.number(value, "alpha")}),))

    return reader


def gelu(call: Call, input: fx.Node, approximate: object = "none") -> Chain:
    call.shape(input)
    return Chain((input,), (activation("gelu", {"approximate": approximate == "tanh"}),))


def softplus(call: Call, input: fx.Node, beta: object = 1.0, threshold: object = 20.0) -> Chain:
    call.shape(input)
    return Chain((input,), (nn.Softplus(call.number(beta, "beta"), call.number(threshold, "threshold")),))


def prelu(call: Call, input: fx.Node, weight: object) -> Chain:
    """The weight of `F.prelu` has one value, or one per channel."""
    call.shape(input)
    slope = constant(call, weight)
    assert slope is not None
    module = nn.PReLU(slope.numel())
    module.weight = parameter(slope)
    return Chain((input,), (module,))


def rrelu_module(call: Call, input: fx.Node) -> Chain:
    """In evaluation it is a leaky ReLU of the mean slope."""
    return scaled("leaky_relu", (call.module.lower + call.module.upper) / 2)(call, input)


def out_of_place(call: Call, input: fx.Node) -> Chain:
    """A module as it is, but for writing into its input."""
    call.shape(input)
    module = copy.deepcopy(call.module)
    module.inplace = False
    return Chain((input,), (module,))


_PLAIN: Mapping[Activation, tuple[Any, ...]] = {
    "hardswish": (F.hardswish,),
    "silu": (F.silu,),
    "mish": (F.mish,),
    "selu": (F.selu, F.selu_, torch.selu, torch.selu_),
    "hardsigmoid": (F.hardsigmoid,),
    "sigmoid": (F.sigmoid, torch.sigmoid, torch.sigmoid_, torch.special.expit, "sigmoid", "sigmoid_"),
    "tanh": (F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"),
}
"""Functions without parameters. Their modules are taken as they are."""


class ModuliseActivations(CallEditor):
    """`relu(x) -> ReLU()(x)`, `hardtanh(x, 0, c) -> Ceiling(c)(x)`, `silu(x) -> SiLU()(x)`.

    Modules that write in place become ones that do not. What no core computes stays a module of its own kind until it
    is substituted.
    """

    readers: ClassVar[Mapping[Any, Reader]] = (
        dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_", nn.ReLU), relu)
        | dict.fromkeys((F.relu6, nn.ReLU6), relu6)
        | dict.fromkeys((F.hardtanh, F.hardtanh_), hardtanh)
        | dict.fromkeys((torch.clamp, torch.clip, torch.clamp_, torch.clip_), clamp)
        | dict.fromkeys((torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_"), clamp)
        | dict.fromkeys((torch.clamp_max, torch.clamp_max_, "clamp_max", "clamp_max_"), clamp_max)
        | dict.fromkeys((torch.minimum, "minimum"), minimum)
        | dict.fromkeys((torch.maximum, "maximum"), maximum)
        | dict.fromkeys(("clamp", "clamp_", "clip", "clip_"), clamp)
        | {nn.Hardtanh: hardtanh_module}
        | {call: plain(kind) for kind, calls in _PLAIN.items() for call in calls}
        | dict.fromkeys((F.leaky_relu, F.leaky_relu_), scaled("leaky_relu", 0.01))
        | dict.fromkeys((F.elu, F.elu_), scaled("elu", 1.0))
        | dict.fromkeys((F.celu, F.celu_, torch.celu, torch.celu_), scaled("celu", 1.0))
        | {F.gelu: gelu, F.softplus: softplus, nn.RReLU: rrelu_module}
        | dict.fromkeys((F.prelu, torch.prelu, "prelu"), prelu)
        | dict.fromkeys((nn.LeakyReLU, nn.Hardswish, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU), out_of_place)
        | {nn.Hardsigmoid: out_of_place}
    )
