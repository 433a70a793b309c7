"""ONNX operators that take the mean or the maximum over windows of a map, or over the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from dianaq_quant.importers.layout import axes_of, in_two_dimensions, over_space
from dianaq_quant.importers.step import Handler, Importer, Step
from dianaq_quant.importers.windows import pair, window
from dianaq_quant.modules.structure import AvgPool2d, Flatten, GlobalAvgPool2d, MaxPool2d
from dianaq_quant.modules.windows import Window, rounded_up, unpadded


def _window(importer: Importer, step: Step) -> Window:
    """The window of a pool, without what ceil_mode adds."""
    kernel = pair(step.attributes["kernel_shape"])
    stride, pads = window(step, importer, kernel)
    if pair(step.attributes.get("dilations", (1, 1))) != (1, 1):
        raise step.refuse("dilated pooling is not supported; a pool without dilation would work")
    return Window(kernel, stride, pads)


def max_pool(importer: Importer, step: Step) -> None:
    if len(step.node.output) > 1 and step.node.output[1]:
        raise step.refuse("the indices output is not supported; a pool with one output would work")
    size, w = _size(importer, step), _window(importer, step)
    if step.attributes.get("ceil_mode", 0):
        w = rounded_up(w, size)
    importer.call(step, MaxPool2d(w.kernel, w.stride, w.pads))


def average_pool(importer: Importer, step: Step) -> None:
    size, w = _size(importer, step), _window(importer, step)
    if step.attributes.get("ceil_mode", 0) and rounded_up(w, size) != w:
        raise step.refuse(
            f"ceil_mode = 1 with windows of {w.kernel} that do not fit the map of {size} evenly, whose divisor differs "
            "at the border; ceil_mode = 0 would work"
        )
    if any(w.pads) and not step.attributes.get("count_include_pad", 0):
        whole = unpadded(w, size)
        if whole is None:
            raise step.refuse(
                "padding with count_include_pad = 0, whose divisor differs at the border; count_include_pad = 1 or no "
                "padding would work"
            )
        w = whole
    importer.call(step, GlobalAvgPool2d() if w.covers(size) else AvgPool2d(w.kernel, w.stride, w.pads))


def _size(importer: Importer, step: Step) -> tuple[int, int]:
    shape = step.example(importer).shape
    if len(shape) != 4:
        raise step.refuse(f"its input must be a map (C, H, W) per sample, its shape is {tuple(shape[1:])}")
    return shape[2], shape[3]


def _whole_maximum(size: tuple[int, int]) -> MaxPool2d:
    return MaxPool2d(size, (1, 1), (0, 0, 0, 0))


def global_average_pool(importer: Importer, step: Step) -> None:
    _size(importer, step)
    importer.call(step, GlobalAvgPool2d())


def global_max_pool(importer: Importer, step: Step) -> None:
    importer.call(step, _whole_maximum(_size(importer, step)))


def reduction(importer: Importer, step: Step, *, what: str, module: Callable[[tuple[int, int]], nn.Module]) -> None:
    """A mean or maximum over both spatial dimensions, which stay as 1 x 1 or go."""
    axes = axes_of(importer, step)
    rank = step.example(importer).dim()
    if rank != 4 or axes is None or sorted(a % rank for a in axes) != [2, 3]:
        raise step.refuse(f"axes {axes}; supported is the {what} over the two spatial dimensions, axes [2, 3]")
    importer.call(step, module(_size(importer, step)))
    if not step.attributes.get("keepdims", 1):
        importer.call(step, Flatten(), step.node.output[0])


HANDLERS: dict[str, Handler] = {
    "AveragePool": in_two_dimensions(average_pool),
    "GlobalAveragePool": in_two_dimensions(global_average_pool),
    "GlobalMaxPool": in_two_dimensions(global_max_pool),
    "MaxPool": in_two_dimensions(max_pool),
    "ReduceMax": over_space(partial(reduction, what="maximum", module=_whole_maximum)),
    "ReduceMean": over_space(partial(reduction, what="mean", module=lambda size: GlobalAvgPool2d())),
}
