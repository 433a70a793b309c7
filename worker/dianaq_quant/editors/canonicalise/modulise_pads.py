"""Zero padding in every spelling becomes a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.modules.layout import of_line
from dianaq_quant.modules.structure import Pad2d


def pad(call: Call, input: fx.Node, pad: object, mode: object = "constant", value: object = None) -> Chain:
    """`F.pad`: before and after each dimension, the last one first."""
    shape = call.shape(input)
    if mode != "constant":
        raise call.refuse(f"mode {mode!r}; the chip pads with zeros, mode='constant' would work")
    if not isinstance(pad, tuple | list) or not all(isinstance(p, int) for p in pad):
        raise call.refuse(f"pad must be integers that are known before the network runs, not {pad}")
    widths = [int(p) for p in pad]
    if not any(widths):
        return Chain((input,))
    if value is not None and call.number(value, "value") != 0.0:
        raise call.refuse(f"it pads with {value}; the chip pads with zeros, value=0 would work")
    if min(widths) < 0:
        raise call.refuse(f"padding {tuple(widths)}, which crops where it is negative; without that, it would work")
    line = len(shape) == 2
    if line:
        widths[2:2] = [0, 0]  # of the height that a line has not
    if len(shape) not in (2, 3) or any(widths[6:]):
        raise call.refuse(f"padding {pad} of {shape} per sample; of a map (C, H, W) it would work")
    left, right, top, bottom, before, after = (*widths, 0, 0, 0, 0)[:6]
    module = Pad2d((top, left, bottom, right), (before, after))
    return Chain((input,), of_line(shape, (module,), call.node.meta["shape"]) if line else (module,))


def zero_pad_module(call: Call, input: fx.Node) -> Chain:
    return pad(call, input, call.module.padding)


def constant_pad_module(call: Call, input: fx.Node) -> Chain:
    return pad(call, input, call.module.padding, value=call.module.value)


class ModulisePads(CallEditor):
    """`F.pad(x, (1, 1)) -> Pad2d((0, 1, 0, 1))(x)`; of a line (C, L) as of a map of height 1."""

    readers: ClassVar[Mapping[Any, Reader]] = {
        F.pad: pad,
        nn.ZeroPad2d: zero_pad_module,
        nn.ZeroPad1d: zero_pad_module,
        nn.ConstantPad1d: constant_pad_module,
        nn.ConstantPad2d: constant_pad_module,
        nn.ConstantPad3d: constant_pad_module,
    }
