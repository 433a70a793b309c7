"""Factors, offsets and divisors that are constants become affine maps, differences become sums."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader, Shape
from dianaq_quant.editors.canonicalise.traced_constants import number_or_tensor
from dianaq_quant.modules.broadcast import divided, scaled, shifted
from dianaq_quant.modules.structure import Affine, ScaledAdd


def affine(call: Call, source: fx.Node, made: Callable[[Shape], Affine]) -> Chain:
    """What a constant makes of a tensor, given the shape of a sample of it."""
    try:
        return Chain((source,), (made(call.shape(source)),))
    except ValueError as error:
        raise call.refuse(str(error)) from None


def is_per_sample(value: object) -> bool:
    """Whether an argument is a tensor of the samples."""
    return isinstance(value, fx.Node) and "shape" in value.meta


def mul(call: Call, input: Any, other: Any) -> Chain:
    source, constant = (input, other) if is_per_sample(input) else (other, input)
    values = number_or_tensor(call, constant)
    return affine(call, source, lambda shape: scaled(values, shape))


def div(call: Call, input: Any, other: Any, *, rounding_mode: object = None) -> Chain:
    if rounding_mode is not None:
        raise call.refuse(f"rounding_mode {rounding_mode!r}; a division without rounding would work")
    if not is_per_sample(input) or is_per_sample(other):
        raise call.refuse("no core divides by a tensor of the samples; a constant divisor would work")
    values = number_or_tensor(call, other)
    return affine(call, input, lambda shape: divided(values, shape))


def sub(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Chain:
    """`input - alpha * other`."""
    return weighted_sum(call, input, other, -call.number(alpha, "alpha"))


def rsub(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Chain:
    """`other - alpha * input`."""
    return weighted_sum(call, other, input, -call.number(alpha, "alpha"))


def neg(call: Call, input: fx.Node) -> Chain:
    return affine(call, input, lambda shape: scaled(torch.tensor(-1.0), shape))


def weighted_sum(call: Call, a: Any, b: Any, factor: float) -> Chain:
    """`a + factor * b`, of two tensors of one shape, or of one and a constant."""
    if is_per_sample(a) and is_per_sample(b):
        shapes = call.shape(a), call.shape(b)
        if shapes[0] != shapes[1]:
            raise call.refuse(f"its inputs have the shapes {shapes[0]} and {shapes[1]}; two of one shape would work")
        return Chain((a, b), (ScaledAdd(factor),))
    if is_per_sample(a):
        offset: Tensor = factor * number_or_tensor(call, b)
        return affine(call, a, lambda shape: shifted(offset, shape))
    constant = number_or_tensor(call, a)
    return affine(call, b, lambda shape: shifted(constant, shape, factor))


class ModuliseArithmetic(CallEditor):
    """`x * c -> Affine(c, 0)(x)`, `(x - m) / s` likewise; `a - b -> ScaledAdd(-1)(a, b)`.

    Products of two tensors stay: no core computes them.
    """

    readers: ClassVar[Mapping[Any, Reader]] = (
        dict.fromkeys((operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"), mul)
        | dict.fromkeys((operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_"), div)
        | dict.fromkeys((operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_"), sub)
        | {torch.rsub: rsub}
        | dict.fromkeys((operator.neg, torch.neg, torch.negative, "neg", "neg_"), neg)
    )

    def takes(self, network: fx.GraphModule, node: fx.Node) -> bool:
        product = self.readers[node.target] is mul and sum(map(is_per_sample, node.args)) == 2
        return "shape" in node.meta and not product
