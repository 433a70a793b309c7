"""ONNX operators that move values, and those that are read as if their input were a map (C, H, W)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import onnx
from torch import nn

from dianaq_quant.importers.step import Handler, Importer, Step
from dianaq_quant.modules.layout import over_space as over_dimensions
from dianaq_quant.modules.layout import permutation, reshape

Shape = tuple[int, ...]

_PER_DIMENSION = {"kernel_shape": 1, "strides": 1, "dilations": 1}
"""Attributes with one number per spatial dimension, and what stands there for one of size 1."""


def _transpose(importer: Importer, step: Step) -> None:
    shape = _shape(importer, step)
    order = [int(axis) for axis in step.attributes.get("perm", range(len(shape), -1, -1))]
    if order[0] != 0:
        raise step.refuse(f"perm {order}, which moves the samples; with the batch at its place, 0, it would work")
    importer.call(step, permutation(shape, [axis - 1 for axis in order[1:]]))


def _reshape(importer: Importer, step: Step) -> None:
    target = importer.constant(step.node.input[1])
    if target is None:
        raise step.refuse("its target shape is computed while the network runs; a constant one would work")
    batch, shape = step.example(importer).shape[0], _shape(importer, step)
    wanted = [int(size) for size in target.reshape(-1)]
    if not step.attributes.get("allowzero", 0):
        sizes = (batch, *shape)
        wanted = [sizes[i] if size == 0 and i < len(sizes) else size for i, size in enumerate(wanted)]
    whole = math.prod((batch, *shape))
    rest = math.prod(size for size in wanted if size != -1)
    filled = [whole // rest if size == -1 and rest > 0 else size for size in wanted]
    if math.prod(filled) != whole or len(filled) < 2:
        raise step.refuse(f"target shape {wanted} of {(batch, *shape)}")
    if filled[0] != batch:
        raise step.refuse(
            f"target shape {wanted}, which makes {filled[0]} samples of {batch}; with the batch as it is, [0, ...] or "
            "[-1, ...], it would work"
        )
    _to(importer, step, tuple(filled[1:]))


def _flatten(importer: Importer, step: Step) -> None:
    shape = _shape(importer, step)
    axis = int(step.attributes.get("axis", 1)) % (len(shape) + 1)
    if axis != 1 and math.prod(shape[: axis - 1]) != 1:
        raise step.refuse(f"axis {step.attributes['axis']} joins samples; supported is 1")
    if axis == 0:
        raise step.refuse("axis 0 joins all samples; supported is 1")
    _to(importer, step, (math.prod(shape),))


def _squeeze(importer: Importer, step: Step) -> None:
    shape = _shape(importer, step)
    axes = axes_of(importer, step)
    if axes is None and step.example(importer).shape[0] == 1:
        raise step.refuse("it names no axes, and so takes the batch of one sample away too; with axes it would work")
    rank = len(shape) + 1
    gone = [i for i, size in enumerate(shape) if size == 1] if axes is None else [a % rank - 1 for a in axes]
    if -1 in gone or any(shape[i] != 1 for i in gone):
        raise step.refuse(f"axes {axes} of a tensor (N, {', '.join(map(str, shape))}); axes of size 1 would work")
    _to(importer, step, tuple(size for i, size in enumerate(shape) if i not in gone))


def _unsqueeze(importer: Importer, step: Step) -> None:
    shape = _shape(importer, step)
    axes = axes_of(importer, step)
    if axes is None:
        raise step.refuse("its axes are computed while the network runs; constant ones would work")
    rank = len(shape) + 1 + len(axes)
    new = {axis % rank for axis in axes}
    if 0 in new:
        raise step.refuse(f"axes {axes}, which give the samples a place of their own; axes from 1 on would work")
    rest = iter(shape)
    _to(importer, step, tuple(1 if axis in new else next(rest) for axis in range(1, rank)))


def axes_of(importer: Importer, step: Step) -> list[int] | None:
    """Axes: an attribute, or the second input since opsets 13 and 18; None without, or if they are computed."""
    axes = step.attributes.get("axes")
    if axes is None and len(step.node.input) > 1 and step.node.input[1]:
        constant = importer.constant(step.node.input[1])
        axes = None if constant is None else constant.reshape(-1).tolist()
    return None if axes is None else [int(axis) for axis in axes]


def _shape(importer: Importer, step: Step) -> Shape:
    """Of a sample of the step's input."""
    return tuple(step.example(importer).shape[1:])


def _to(importer: Importer, step: Step, shape: Shape) -> None:
    """A reshape of the step's input; nothing where that has the shape."""
    before = _shape(importer, step)
    if not shape:
        raise step.refuse(f"it leaves one number per sample of {before}; (N, 1) would work")
    if before == shape:
        importer.alias(step)
    else:
        importer.call(step, reshape(before, shape))


HANDLERS: dict[str, Handler] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}


def in_two_dimensions(handler: Handler) -> Handler:
    """A handler of maps that takes (N, C, L) as well: as (N, C, 1, L), with windows of height 1."""

    def handle(importer: Importer, step: Step) -> None:
        example = step.example(importer)
        if example.dim() != 3:
            handler(importer, step)
            return
        channels, length = example.shape[1:]
        inner = _between(step, {name: _lifted(name, value) for name, value in step.attributes.items()})
        weight = step.node.input[1] if step.node.op_type == "Conv" else ""
        if weight and (values := importer.constant(weight)) is not None and values.ndim == 3:
            inner.node.input[1] = f"{weight}.2d"
            importer.constants[inner.node.input[1]] = values[:, :, None, :]
        lift = reshape((channels, length), (channels, 1, length))
        chain(importer, step, step.node.input[0], [lift], inner.node.input[0])
        handler(importer, inner)
        made = importer.values[inner.node.output[0]].example.shape
        lower = reshape(tuple(made[1:]), (made[1], made[3]))
        chain(importer, step, inner.node.output[0], [lower], step.node.output[0])

    return handle


def over_space(handler: Handler) -> Handler:
    """A handler of reductions over the axes [2, 3] of (N, C, H, W) that takes other axes: all but one, of any rank."""

    def handle(importer: Importer, step: Step) -> None:
        shape, axes = _shape(importer, step), axes_of(importer, step)
        rank = len(shape) + 1
        gone = sorted({axis % rank - 1 for axis in axes or ()})
        kept = [axis for axis in range(rank - 1) if axis not in gone]
        if axes is None or -1 in gone or len(kept) != 1 or (rank == 4 and gone == [1, 2]):
            handler(importer, step)
            return
        keeps = int(step.attributes.get("keepdims", 1))
        result = tuple(size if axis in kept else 1 for axis, size in enumerate(shape) if keeps or axis in kept)
        inner = _between(step, {**step.attributes, "axes": [2, 3], "keepdims": 1})
        del inner.node.input[1:]
        modules = over_dimensions(shape, kept[0], result, nn.Identity())
        place = next(i for i, module in enumerate(modules) if isinstance(module, nn.Identity))
        chain(importer, step, step.node.input[0], modules[:place], inner.node.input[0])
        handler(importer, inner)
        chain(importer, step, inner.node.output[0], modules[place + 1 :], step.node.output[0])

    return handle


def _between(step: Step, attributes: dict[str, Any]) -> Step:
    """The step with other attributes, on tensors of its own in place of its input and output."""
    node = onnx.NodeProto()
    node.CopyFrom(step.node)
    node.input[0], node.output[0] = f"{step.node.output[0]}.in", f"{step.node.output[0]}.out"
    return Step(node, step.name, attributes)


def chain(importer: Importer, step: Step, source: str, modules: Sequence[nn.Module], result: str) -> None:
    """Let modules, one after the other, make one tensor of another; they bear the step's name."""
    names = [source, *(f"{result}.{i}" for i in range(len(modules)))]
    for module, (read, made) in zip(modules, pairwise(names), strict=True):
        node = onnx.helper.make_node(step.node.op_type, [read], [made])
        importer.call(Step(node, step.name, {}), module)
    importer.values[result] = importer.values[names[-1]]


def _lifted(name: str, value: Any) -> Any:
    """An attribute of a window over a line as that of one over a map of height 1."""
    if name in _PER_DIMENSION:
        return [_PER_DIMENSION[name], *value]
    if name == "pads":
        return [0, value[0], 0, value[1]]
    return value
