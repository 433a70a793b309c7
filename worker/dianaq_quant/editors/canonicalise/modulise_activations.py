"""Activation functions in every spelling become modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.structure import Ceiling


def bounded(call: Call, input: fx.Node, lo: object, hi: object) -> Chain:
    """`min(max(x, lo), hi)`: a ReLU, with a ceiling if there is one.

    On the chip an activation is the clip of a requantisation, whose lower bound is 0 or the least integer.
    """
    call.shape(input)
    bounds = [None if bound is None else call.number(bound, "a bound") for bound in (lo, hi)]
    if bounds[0] != 0.0 or (bounds[1] is not None and not bounds[1] > 0.0):
        raise call.refuse(
            f"bounds [{bounds[0]}, {bounds[1]}]; a lower bound of 0 and a positive or no upper bound "
            "would work (ReLU, ReLU6)"
        )
    ceiling = bounds[1]
    unbounded = ceiling is None or ceiling >= torch.finfo(torch.float32).max
    return Chain((input,), (nn.ReLU() if ceiling is None or unbounded else Ceiling(ceiling),))


def relu(call: Call, input: fx.Node, inplace: bool = False) -> Chain:
    return bounded(call, input, 0.0, None)


def relu6(call: Call, input: fx.Node, inplace: bool = False) -> Chain:
    return bounded(call, input, 0.0, 6.0)


def hardtanh(call: Call, input: fx.Node, min_val: object = -1.0, max_val: object = 1.0, inplace: bool = False) -> Chain:
    return bounded(call, input, min_val, max_val)


def hardtanh_module(call: Call, input: fx.Node) -> Chain:
    return bounded(call, input, call.module.min_val, call.module.max_val)


def clamp(call: Call, input: fx.Node, min: object = None, max: object = None) -> Chain:
    return bounded(call, input, min, max)


def leaky_relu(call: Call, input: fx.Node, negative_slope: object = 0.01, inplace: bool = False) -> Chain:
    """Stays in the canonical float network; no core computes it, so that the quantisation refuses it."""
    call.shape(input)
    return Chain((input,), (nn.LeakyReLU(call.number(negative_slope, "negative_slope")),))


def leaky_relu_module(call: Call, input: fx.Node) -> Chain:
    return leaky_relu(call, input, call.module.negative_slope)


class ModuliseActivations(CallEditor):
    """`relu(x) -> ReLU()(x)`, `hardtanh(x, 0, c) -> Ceiling(c)(x)`, `leaky_relu(x) -> LeakyReLU()(x)`.

    Modules that write in place become ones that do not.
    """

    readers: ClassVar[Mapping[Any, Reader]] = (
        dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_", nn.ReLU), relu)
        | dict.fromkeys((F.relu6, nn.ReLU6), relu6)
        | dict.fromkeys((F.hardtanh, F.hardtanh_), hardtanh)
        | dict.fromkeys((torch.clamp, torch.clip, torch.clamp_, torch.clip_), clamp)
        | dict.fromkeys((torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_"), clamp)
        | dict.fromkeys(("clamp", "clamp_", "clip", "clip_"), clamp)
        | dict.fromkeys((F.leaky_relu, F.leaky_relu_), leaky_relu)
        | {nn.Hardtanh: hardtanh_module, nn.LeakyReLU: leaky_relu_module}
    )
