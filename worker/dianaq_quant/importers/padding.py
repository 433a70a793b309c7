"""ONNX operators that add zeros around a map or line, and that take a part of it."""

from __future__ import annotations

from torch import nn

from dianaq_quant.importers.layout import chain
from dianaq_quant.importers.step import Handler, Importer, Step
from dianaq_quant.modules.layout import of_line
from dianaq_quant.modules.structure import Pad2d, Slice2d


def pad(importer: Importer, step: Step) -> None:
    """Zeros before and after; an attribute until opset 10, then inputs, since opset 18 with axes."""
    shape = step.example(importer).shape
    mode = step.attributes.get("mode", b"constant").decode()
    if mode != "constant":
        raise step.refuse(f"mode {mode!r}; the chip pads with zeros, mode 'constant' would work")
    pads, value = step.attributes.get("pads"), step.attributes.get("value", 0.0)
    if pads is None:
        pads = _integers(importer, step, 1, "the padding")
        given = importer.constant((*step.node.input, "", "")[2])
        if given is None and (*step.node.input, "", "")[2]:
            raise step.refuse("its value must be a constant")
        value = 0.0 if given is None else float(given.reshape(-1)[0])
    axes = _integers(importer, step, 3, "axes") if (*step.node.input, "", "", "")[3] else list(range(len(shape)))
    if len(pads) != 2 * len(axes):
        raise step.refuse(f"{len(pads)} values of padding for {len(axes)} dimensions; one before and one after each")
    around = [(0, 0)] * len(shape)
    for i, axis in enumerate(axes):
        around[axis % len(shape)] = (pads[i], pads[i + len(axes)])
    if value != 0.0 and any(map(any, around)):
        raise step.refuse(f"it pads with {value:g}; the chip pads with zeros")
    if any(min(ends) < 0 for ends in around):
        raise step.refuse(f"padding {list(pads)}, which crops where it is negative; without that, it would work")
    if not any(map(any, around)):
        importer.alias(step)
        return
    line = len(shape) == 3
    if line:
        around.insert(2, (0, 0))
    if len(around) != 4 or any(around[0]):
        raise step.refuse(
            f"padding {list(pads)} of a tensor (N, {', '.join(map(str, shape[1:]))}); of a map or line it would work"
        )
    (top, bottom), (left, right) = around[2], around[3]
    channels, length = shape[1] + sum(around[1]), shape[-1] + left + right
    _call(importer, step, Pad2d((top, left, bottom, right), around[1]), (channels, length) if line else None)


def slice_(importer: Importer, step: Step) -> None:
    """Every n-th row or column of a map, or value of a line; attributes until opset 9, then inputs."""
    shape = step.example(importer).shape
    starts, ends = ([*step.attributes[k]] if k in step.attributes else None for k in ("starts", "ends"))
    if starts is None or ends is None:
        starts, ends = _integers(importer, step, 1, "starts"), _integers(importer, step, 2, "ends")
    axes = [*step.attributes["axes"]] if "axes" in step.attributes else _optional(importer, step, 3, "axes")
    steps = _optional(importer, step, 4, "steps") or [1] * len(starts)
    if 0 in steps:
        raise step.refuse("a step of 0; positive ones would work")
    taken = [range(size) for size in shape]
    for axis, start, end, stride in zip(axes or range(len(starts)), starts, ends, steps, strict=True):
        taken[axis % len(shape)] = range(shape[axis % len(shape)])[start:end:stride]
    if all(part == range(size) for part, size in zip(taken, shape, strict=True)):
        importer.alias(step)
        return
    what = describe_taken(taken[1:], tuple(shape[1:]))
    line = len(shape) == 3
    if line:
        taken.insert(2, range(1))
    whole = len(taken) == 4 and (taken[0], taken[1]) == (range(shape[0]), range(shape[1]))
    if not whole or not all(map(len, taken)):
        raise step.refuse(f"it takes {what}; no core splits a tensor, one layer for each part would work")
    rows, columns = taken[2:]
    if min(rows.step, columns.step) < 1:
        raise step.refuse("it reverses the map's rows or columns; a step forward would work")
    module = Slice2d((rows.start, columns.start), (rows.step, columns.step), (len(rows), len(columns)))
    _call(importer, step, module, (shape[1], len(columns)) if line else None)


def _call(importer: Importer, step: Step, module: nn.Module, result: tuple[int, int] | None) -> None:
    """A module of maps; of a line (C, L) as a map of height 1, where `result` is the shape (C, L) of what it makes."""
    modules: tuple[nn.Module, ...] = (module,)
    if result is not None:
        modules = of_line(tuple(step.example(importer).shape[1:]), modules, result)
    chain(importer, step, step.node.input[0], modules, step.node.output[0])


def describe_taken(taken: list[range], shape: tuple[int, ...]) -> str:
    """A part of a tensor for a message, in Python's notation of slices."""
    parts = (":" if p == range(s) else f"{p.start}:{p.stop}:{p.step}" for p, s in zip(taken, shape, strict=True))
    return f"[{', '.join(parts)}] of {shape} per sample"


def _integers(importer: Importer, step: Step, index: int, what: str) -> list[int]:
    name = (*step.node.input, "", "", "", "")[index]
    values = importer.constant(name)
    if values is None:
        raise step.refuse(f"{what} must be a constant")
    return [int(v) for v in values.reshape(-1)]


def _optional(importer: Importer, step: Step, index: int, what: str) -> list[int]:
    return _integers(importer, step, index, what) if (*step.node.input, "", "", "", "")[index] else []


HANDLERS: dict[str, Handler] = {"Pad": pad, "Slice": slice_}
