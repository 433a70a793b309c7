"""ONNX operators that compute element by element: sums, constant factors and offsets, bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from dianaq_quant.importers.step import Handler, Importer, Step
from dianaq_quant.modules.broadcast import divided, scaled, shifted
from dianaq_quant.modules.structure import Add, Affine, ScaledAdd, bounded

PRODUCT = "no core multiplies two tensors; a constant factor would work, and so would a sum"


def add(importer: Importer, step: Step) -> None:
    constant, other = operands(importer, step)
    if constant is None:
        both(importer, step, Add())
    else:
        affine(importer, step, other, lambda shape: shifted(constant, shape))


def sub(importer: Importer, step: Step) -> None:
    """`x - c`, `c - x`, and the difference of two tensors, of which the second is scaled by -1."""
    constant, other = operands(importer, step)
    if constant is None:
        both(importer, step, ScaledAdd(-1.0))
    elif other == step.node.input[0]:
        affine(importer, step, other, lambda shape: shifted(-constant, shape))
    else:
        affine(importer, step, other, lambda shape: shifted(constant, shape, -1.0))


def mul(importer: Importer, step: Step) -> None:
    constant, other = operands(importer, step)
    if constant is None:
        raise step.refuse(PRODUCT)
    affine(importer, step, other, lambda shape: scaled(constant, shape))


def div(importer: Importer, step: Step) -> None:
    constant, other = operands(importer, step)
    if constant is None or other != step.node.input[0]:
        raise step.refuse("no core divides by a tensor; a constant divisor would work")
    affine(importer, step, other, lambda shape: divided(constant, shape))


def neg(importer: Importer, step: Step) -> None:
    importer.call(step, Affine(torch.tensor([-1.0]), torch.zeros(1)))


def sum_(importer: Importer, step: Step) -> None:
    """Of one tensor the tensor itself, of two an addition."""
    if len(step.node.input) == 1:
        importer.alias(step)
    elif len(step.node.input) == 2:
        add(importer, step)
    else:
        raise step.refuse(f"it adds {len(step.node.input)} tensors; sums of two would work, one after the other")


def cast(importer: Importer, step: Step) -> None:
    """From float32 to float32: the network's values have no other type."""
    to = step.attributes.get("to")
    if to != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(to) if to in onnx.TensorProto.DataType.values() else str(to)
        raise step.refuse(f"it makes {name.lower()} of the network's values; float32 throughout would work")
    importer.alias(step)


def clip(importer: Importer, step: Step) -> None:
    bounds = []
    for index, key in ((1, "min"), (2, "max")):
        name = (*step.node.input, "", "")[index]
        value = importer.constant(name) if name else step.attributes.get(key)
        if name and value is None:
            raise step.refuse(f"{key} must be a constant")
        bounds.append(None if value is None else _one_number(step, np.asarray(value), key))
    importer.call(step, bounded(*bounds))


def minimum(importer: Importer, step: Step) -> None:
    _bound(importer, step, lambda value: bounded(None, value))


def maximum(importer: Importer, step: Step) -> None:
    _bound(importer, step, lambda value: bounded(value, None))


def relu(importer: Importer, step: Step) -> None:
    importer.call(step, nn.ReLU())


def _bound(importer: Importer, step: Step, module: Callable[[float], nn.Module]) -> None:
    """Min or Max of a tensor and a number."""
    if len(step.node.input) == 1:
        importer.alias(step)
        return
    constant, other = operands(importer, step) if len(step.node.input) == 2 else (None, "")
    if constant is None:
        raise step.refuse("no core compares tensors; the bound of one tensor by a constant would work")
    importer.call(step, module(_one_number(step, constant.numpy(), "the bound")), other)


def _one_number(step: Step, values: np.ndarray, what: str) -> float:
    if values.size == 0 or not (values == values.flat[0]).all():
        raise step.refuse(f"{what} of shape {values.shape} differs from value to value; one number would work")
    return float(values.flat[0])


def operands(importer: Importer, step: Step) -> tuple[Tensor | None, str]:
    """The constant of two inputs and the name of the other one; without a constant, None.

    Raises:
        UnsupportedOperator: both are constants.
    """
    constants = [name for name in step.node.input if importer.constant(name) is not None]
    if not constants:
        return None, ""
    if len(constants) == 2:
        raise step.refuse(
            f"inputs {constants[0]!r} and {constants[1]!r} are constants; fold constants before the export"
        )
    (other,) = (name for name in step.node.input if name != constants[0])
    return importer.tensor(constants[0]), other


def both(importer: Importer, step: Step, module: nn.Module) -> None:
    """A module of two tensors, which must have one shape."""
    shapes = [tuple(step.example(importer, i).shape) for i in (0, 1)]
    if shapes[0] != shapes[1]:
        raise step.refuse(f"both inputs must have one shape, they have {shapes[0][1:]} and {shapes[1][1:]}")
    importer.call(step, module, *step.node.input)


def affine(importer: Importer, step: Step, other: str, made: Callable[[tuple[int, ...]], Affine]) -> None:
    """What a constant makes of the other input, given the shape of a sample of it."""
    shape = tuple(step.value(importer, other).example.shape[1:])
    try:
        module = made(shape)
    except ValueError as error:
        raise step.refuse(str(error)) from None
    importer.call(step, module, other)


HANDLERS: dict[str, Handler] = {
    "Add": add,
    "Cast": cast,
    "Clip": clip,
    "Div": div,
    "Max": maximum,
    "Min": minimum,
    "Mul": mul,
    "Neg": neg,
    "Relu": relu,
    "Sub": sub,
    "Sum": sum_,
}
