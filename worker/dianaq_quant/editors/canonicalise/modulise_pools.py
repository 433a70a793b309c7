"""Pools in every spelling become modules with explicit windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.structure import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from dianaq_quant.modules.windows import Window, rounded_up, unpadded


def window(call: Call, input: object, kernel: object, stride: object, padding: object) -> Window:
    """The window of a pool without ceil_mode; without a stride, windows lie side by side."""
    call.map_shape(input)
    k = call.pair(kernel, "kernel_size")
    p = call.pair(padding, "padding")
    return Window(k, call.pair(stride, "stride") if stride not in (None, [], ()) else k, (*p, *p))


def max_pool(
    call: Call,
    input: fx.Node,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Chain:
    if call.pair(dilation, "dilation") != (1, 1):
        raise call.refuse(f"dilation {dilation}; a max pool without dilation would work")
    if return_indices:
        raise call.refuse("it returns indices, which no core computes; return_indices=False would work")
    w = window(call, input, kernel_size, stride, padding)
    if ceil_mode:
        w = rounded_up(w, call.map_shape(input))
    return Chain((input,), (MaxPool2d(w.kernel, w.stride, w.pads),))


def max_pool_module(call: Call, input: fx.Node) -> Chain:
    m = call.module
    return max_pool(call, input, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)


def average_pool(
    call: Call,
    input: fx.Node,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: object = None,
) -> Chain:
    w, size = window(call, input, kernel_size, stride, padding), call.map_shape(input)
    if ceil_mode and rounded_up(w, size) != w:
        raise call.refuse(
            f"ceil_mode with windows that do not fit the map of {size} evenly, whose divisor differs at the border; "
            "ceil_mode=False, or a map that they fit, would work"
        )
    if any(w.pads) and not count_include_pad:
        whole = unpadded(w, size)
        if whole is None:
            raise call.refuse(
                "padding with count_include_pad=False, whose divisor differs at the border; "
                "count_include_pad=True or no padding would work"
            )
        w = whole
    if divisor_override not in (None, w.kernel[0] * w.kernel[1]):
        raise call.refuse(f"divisor_override = {divisor_override}; a mean over the window would work")
    return _average(call, input, w)


def _average(call: Call, input: fx.Node, w: Window) -> Chain:
    whole = w.covers(call.map_shape(input))
    return Chain((input,), (GlobalAvgPool2d() if whole else AvgPool2d(w.kernel, w.stride, w.pads),))


def average_pool_module(call: Call, input: fx.Node) -> Chain:
    m = call.module
    return average_pool(
        call, input, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    )


def _even_window(call: Call, input: object, output_size: object) -> Window | None:
    """The window of an adaptive pool whose windows are all of one size; None if it leaves the map as it is.

    A size of None keeps that of the map.
    """
    size = call.map_shape(input)
    wanted = (output_size, output_size) if isinstance(output_size, int) else output_size
    if isinstance(wanted, tuple | list):
        wanted = [map_size if w is None else w for w, map_size in zip(wanted, size, strict=False)]
    out = call.pair(wanted, "output_size")
    if any(map_size % o for o, map_size in zip(out, size, strict=True)):
        raise call.refuse(
            f"output_size {out} of a map of {size}, whose windows differ in size; one that divides the map would work"
        )
    kernel = (size[0] // out[0], size[1] // out[1])
    return None if kernel == (1, 1) and out != (1, 1) else Window(kernel, kernel, (0, 0, 0, 0))


def adaptive_average_pool(call: Call, input: fx.Node, output_size: object) -> Chain:
    w = _even_window(call, input, output_size)
    return Chain((input,)) if w is None else _average(call, input, w)


def adaptive_average_pool_module(call: Call, input: fx.Node) -> Chain:
    return adaptive_average_pool(call, input, call.module.output_size)


def adaptive_max_pool(call: Call, input: fx.Node, output_size: object, return_indices: bool = False) -> Chain:
    if return_indices:
        raise call.refuse("it returns indices, which no core computes; return_indices=False would work")
    w = _even_window(call, input, output_size)
    return Chain((input,), () if w is None else (MaxPool2d(w.kernel, w.stride, w.pads),))


def adaptive_max_pool_module(call: Call, input: fx.Node) -> Chain:
    return adaptive_max_pool(call, input, call.module.output_size, call.module.return_indices)


class ModulisePools(CallEditor):
    """`max_pool2d(x, 2) -> MaxPool2d((2, 2), ...)(x)`, average and adaptive pools alike.

    An average over the whole map is a `GlobalAvgPool2d`.
    """

    readers: ClassVar[Mapping[Any, Reader]] = {
        F.max_pool2d: max_pool,
        torch.max_pool2d: max_pool,
        nn.MaxPool2d: max_pool_module,
        F.avg_pool2d: average_pool,
        nn.AvgPool2d: average_pool_module,
        F.adaptive_avg_pool2d: adaptive_average_pool,
        nn.AdaptiveAvgPool2d: adaptive_average_pool_module,
        F.adaptive_max_pool2d: adaptive_max_pool,
        nn.AdaptiveMaxPool2d: adaptive_max_pool_module,
    }
