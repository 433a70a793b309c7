"""Convolutions and fully connected layers in every spelling become modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.editors.canonicalise.traced_constants import constant, lifted, parameter, shared_note
from dianaq_quant.modules.structure import Conv2d, Pads


def convolution(
    call: Call,
    input: fx.Node,
    weight: object,
    bias: object = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Chain:
    """`F.conv2d`: a layer that holds the very parameters, so that what is tied stays tied."""
    return _convolution(
        call, input, constant(call, weight), constant(call, bias), stride, padding, dilation, groups,
        note=shared_note(weight),
    )  # fmt: skip


def _convolution(
    call: Call,
    input: fx.Node,
    weight: Tensor | None,
    bias: Tensor | None,
    stride: object,
    padding: object,
    dilation: object,
    groups: int,
    note: str = "",
) -> Chain:
    call.map_shape(input)
    assert weight is not None
    if weight.dim() == 3:  # of a 1-d network
        weight = lifted(call, weight)
    kernel = (weight.shape[2], weight.shape[3])
    s, d = call.pair(stride, "stride"), call.pair(dilation, "dilation")
    layer = Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        s,
        dilation=d,
        groups=groups,
        bias=bias is not None,
        pads=_pads(call, padding, kernel, d),
        device="meta",
    )
    layer.weight, layer.bias = parameter(weight), None if bias is None else parameter(bias)
    return Chain((input,), (layer,), note)


def _pads(call: Call, padding: object, kernel: tuple[int, int], dilation: tuple[int, int]) -> Pads:
    """The four paddings. `same` puts the odd one at the end (`torch.nn.functional.conv2d`)."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        before = [t // 2 for t in total]
        return (before[0], before[1], total[0] - before[0], total[1] - before[1])
    vertical, horizontal = call.pair(padding, "padding")
    return (vertical, horizontal, vertical, horizontal)


def convolution_module(call: Call, input: fx.Node) -> Chain:
    m = call.module
    if m.padding_mode != "zeros":
        raise call.refuse(f"padding_mode {m.padding_mode!r}; the chip pads with zeros, padding_mode='zeros' would work")
    return _convolution(call, input, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)


def fully_connected(call: Call, input: fx.Node, weight: object, bias: object = None) -> Chain:
    """`F.linear`."""
    values, offset = constant(call, weight), constant(call, bias)
    assert values is not None
    if len(call.shape(input)) != 1:
        raise call.refuse(f"its input must be a vector per sample, its shape is {call.shape(input)}; flatten it first")
    layer = nn.Linear(values.shape[1], values.shape[0], bias=offset is not None, device="meta")
    layer.weight = parameter(values)
    if offset is not None:
        layer.bias = parameter(offset)
    return Chain((input,), (layer,), shared_note(weight))


class ModuliseLayers(CallEditor):
    """`conv2d(x, w, b) -> Conv2d()(x)`, with four paddings; `linear(x, w, b) -> Linear()(x)`."""

    readers: ClassVar[Mapping[Any, Reader]] = {
        F.conv2d: convolution,
        nn.Conv2d: convolution_module,
        F.linear: fully_connected,
    }
