"""One handler per ONNX operator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from onnx import numpy_helper
from torch import nn

from dianaq_quant.importers import layout
from dianaq_quant.importers.activations import ACTIVATIONS
from dianaq_quant.importers.step import Handler, Importer, Step
from dianaq_quant.modules.structure import (
    Add,
    AvgPool2d,
    Ceiling,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    Pads,
)


def _constant(importer: Importer, step: Step) -> None:
    """A dense tensor, or numbers in one of the attributes that stand for one (ONNX, Constant since version 12)."""
    kind = next((k for k in step.attributes if k.startswith("value")), "none")
    if kind == "value":
        array = numpy_helper.to_array(step.attributes["value"])
    elif kind in ("value_float", "value_floats", "value_int", "value_ints"):
        array = np.asarray(step.attributes[kind], np.float32 if "float" in kind else np.int64)
    else:
        raise step.refuse(f"a constant of numbers is supported, this one has {kind}")
    importer.constants[step.node.output[0]] = array


def _identity(importer: Importer, step: Step) -> None:
    value = importer.constant(step.node.input[0])
    if value is not None:
        importer.constants[step.node.output[0]] = value
    else:
        importer.alias(step)


def _dropout(importer: Importer, step: Step) -> None:
    importer.notes.append(f"{step.describe()} dropped: it is the identity in evaluation")
    importer.alias(step)


def _softmax(importer: Importer, step: Step) -> None:
    if step.node.output[0] != importer.onnx_graph.output[0].name:
        raise step.refuse("supported only as the last operator, where it is dropped")
    importer.notes.append(
        f"{step.describe()} dropped: the network's output is its input, of the same ranking of classes"
    )
    importer.alias(step)


def _window(step: Step, importer: Importer, kernel: tuple[int, int]) -> tuple[tuple[int, int], Pads]:
    """Stride and padding of a convolution or pooling."""
    stride = _pair(step.attributes.get("strides", (1, 1)))
    dilation = _pair(step.attributes.get("dilations", (1, 1)))
    auto = step.attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        pads = tuple(step.attributes.get("pads", (0, 0, 0, 0))) if auto == "NOTSET" else (0, 0, 0, 0)
        if any(p < 0 for p in pads):
            raise step.refuse(f"negative padding {pads}")
        return stride, pads
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise step.refuse(f"auto_pad {auto!r}; supported are NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    before, after = [], []
    for size, k, s, d in zip(step.example(importer).shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return stride, (before[0], before[1], after[0], after[1])


def _pair(values: Iterable[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _conv(importer: Importer, step: Step) -> None:
    weight_name, bias_name = step.node.input[1], (*step.node.input, "")[2]
    if importer.constant(weight_name) is None or (bias_name and importer.constant(bias_name) is None):
        raise step.refuse("the weight and the bias must be constants")
    weight = importer.tensor(weight_name)
    if weight.dim() != 4 or step.example(importer).dim() != 4:
        raise step.refuse(f"only 1-d and 2-d convolutions are supported, the weight's shape is {tuple(weight.shape)}")
    groups = int(step.attributes.get("group", 1))
    kernel = (weight.shape[2], weight.shape[3])
    stride, pads = _window(step, importer, kernel)
    dilation = _pair(step.attributes.get("dilations", (1, 1)))
    conv = Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        stride,
        dilation=dilation,
        groups=groups,
        bias=bool(bias_name),
        pads=pads,
    )
    conv.weight = importer.weight(step, weight_name, weight)
    _fill_bias(conv, importer, bias_name)
    importer.call(step, conv)


def _fill_bias(module: nn.Conv2d | nn.Linear, importer: Importer, bias_name: str) -> None:
    if bias_name:
        assert module.bias is not None
        with torch.no_grad():
            module.bias.copy_(importer.tensor(bias_name).flatten())


def _gemm(importer: Importer, step: Step) -> None:
    weight_name, bias_name = step.node.input[1], (*step.node.input, "")[2]
    if importer.constant(weight_name) is None or (bias_name and importer.constant(bias_name) is None):
        raise step.refuse("B and C must be constants")
    if step.attributes.get("transA", 0):
        raise step.refuse("transA = 1 is not supported")
    weight = importer.tensor(weight_name) * step.attributes.get("alpha", 1.0)
    if not step.attributes.get("transB", 0):
        weight = weight.t()
    beta = step.attributes.get("beta", 1.0)
    if bias_name and beta != 1.0:
        importer.constants[bias_name + ".beta"] = importer.constants[bias_name] * np.float32(beta)
        bias_name += ".beta"
    _linear(importer, step, weight, bias_name, transposed=not step.attributes.get("transB", 0))


def _matmul(importer: Importer, step: Step) -> None:
    if importer.constant(step.node.input[1]) is None:
        raise step.refuse("the second operand must be a constant")
    weight = importer.tensor(step.node.input[1])
    if weight.dim() != 2:
        raise step.refuse(f"the second operand must be a matrix, its shape is {tuple(weight.shape)}")
    _linear(importer, step, weight.t(), "", transposed=True)


def _linear(importer: Importer, step: Step, weight: torch.Tensor, bias_name: str, *, transposed: bool) -> None:
    shape = tuple(step.example(importer).shape)
    if len(shape) != 2:
        raise step.refuse(f"its input must be a vector per sample, its shape is {shape[1:]}; flatten it first")
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=bool(bias_name))
    if bias_name and importer.constants[bias_name].size not in (1, out_features):
        raise step.refuse(f"the bias has {importer.constants[bias_name].size} values, not {out_features}")
    if bias_name:
        importer.constants[bias_name] = np.broadcast_to(importer.constants[bias_name].ravel(), (out_features,))
    linear.weight = importer.weight(step, step.node.input[1], weight, transposed)
    _fill_bias(linear, importer, bias_name)
    importer.call(step, linear)


def _batch_norm(importer: Importer, step: Step) -> None:
    names = step.node.input[1:5]
    if any(importer.constant(n) is None for n in names):
        raise step.refuse("scale, bias, mean and variance must be constants")
    kind = nn.BatchNorm2d if step.example(importer).dim() == 4 else nn.BatchNorm1d
    scale, bias, mean, variance = (importer.tensor(n) for n in names)
    # ONNX keeps `momentum` of the old statistics, torch takes `momentum` of the new ones.
    momentum = 1.0 - float(step.attributes.get("momentum", 0.9))
    norm = kind(len(scale), eps=float(step.attributes.get("epsilon", 1e-5)), momentum=momentum or 0.1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.copy_(scale)
        norm.bias.copy_(bias)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    importer.call(step, norm)


def _relu(importer: Importer, step: Step) -> None:
    importer.call(step, nn.ReLU())


def _clip(importer: Importer, step: Step) -> None:
    bounds = []
    for index, key in ((1, "min"), (2, "max")):
        name = (*step.node.input, "", "")[index]
        value = importer.constant(name) if name else step.attributes.get(key)
        if name and value is None:
            raise step.refuse(f"{key} must be a constant")
        bounds.append(None if value is None else float(np.asarray(value).item()))
    lo, hi = bounds
    if lo != 0.0 or (hi is not None and hi <= 0.0):
        raise step.refuse(f"bounds [{lo}, {hi}]; supported are min = 0 and a positive or absent max (ReLU, ReLU6)")
    unbounded = hi is None or hi >= torch.finfo(torch.float32).max
    importer.call(step, nn.ReLU() if unbounded or hi is None else Ceiling(hi))


def _add(importer: Importer, step: Step) -> None:
    constant = next((n for n in step.node.input if importer.constant(n) is not None), None)
    if constant is not None:
        _add_bias(importer, step, constant)
        return
    shapes = [tuple(step.example(importer, i).shape) for i in (0, 1)]
    if shapes[0] != shapes[1]:
        raise step.refuse(f"both inputs must have one shape, they have {shapes[0][1:]} and {shapes[1][1:]}")
    importer.call(step, Add(), *step.node.input)


def _add_bias(importer: Importer, step: Step, constant: str) -> None:
    """MatMul or Conv, then the addition of a constant per channel: the layer's bias."""
    other = next(n for n in step.node.input if n != constant)
    value = importer.values.get(other)
    layer = None if value is None else getattr(importer.root, str(value.node.target), None)
    values = importer.constants[constant]
    uses = sum(list(n.input).count(other) for n in importer.onnx_graph.node)
    uses += sum(o.name == other for o in importer.onnx_graph.output)
    if (
        value is None
        or not isinstance(layer, nn.Linear | nn.Conv2d)
        or layer.bias is not None
        or uses != 1
        or not _is_per_channel(values.shape, tuple(value.example.shape))
    ):
        raise step.refuse(
            "the addition of a constant is supported only as the bias, one value per output channel, "
            "of a MatMul or Conv that has none"
        )
    per_channel = np.broadcast_to(values.ravel(), (layer.weight.shape[0],)).astype(np.float32)
    layer.bias = nn.Parameter(torch.from_numpy(per_channel.copy()))
    importer.values[step.node.output[0]] = value


def _is_per_channel(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a constant broadcasts to a tensor (N, C, ...) with one value, or one per channel."""
    aligned = (1,) * (len(target) - len(shape)) + shape
    return len(aligned) == len(target) and aligned in ((1,) * len(target), (1, target[1], *(1,) * (len(target) - 2)))


def _pool_window(importer: Importer, step: Step) -> tuple[tuple[int, int], tuple[int, int], Pads]:
    kernel = _pair(step.attributes["kernel_shape"])
    stride, pads = _window(step, importer, kernel)
    if _pair(step.attributes.get("dilations", (1, 1))) != (1, 1):
        raise step.refuse("dilated pooling is not supported")
    sizes = step.example(importer).shape[2:]
    spans = [s + pads[i] + pads[i + 2] - kernel[i] for i, s in enumerate(sizes)]
    if step.attributes.get("ceil_mode", 0) and any(span % stride[i] for i, span in enumerate(spans)):
        raise step.refuse(f"ceil_mode = 1 with a window that does not fit the map of {tuple(sizes)} evenly")
    return kernel, stride, pads


def _max_pool(importer: Importer, step: Step) -> None:
    if len(step.node.output) > 1:
        raise step.refuse("the indices output is not supported")
    importer.call(step, MaxPool2d(*_pool_window(importer, step)))


def _average_pool(importer: Importer, step: Step) -> None:
    kernel, stride, pads = _pool_window(importer, step)
    if any(pads) and not step.attributes.get("count_include_pad", 0):
        raise step.refuse("padding with count_include_pad = 0 is not supported (the divisor would vary)")
    if kernel == tuple(step.example(importer).shape[2:]) and not any(pads):
        importer.call(step, GlobalAvgPool2d())
    else:
        importer.call(step, AvgPool2d(kernel, stride, pads))


def _global_average_pool(importer: Importer, step: Step) -> None:
    importer.call(step, GlobalAvgPool2d())


def _reduce_mean(importer: Importer, step: Step) -> None:
    axes = step.attributes.get("axes")
    if axes is None and len(step.node.input) > 1:
        constant = importer.constant(step.node.input[1])
        axes = None if constant is None else constant.tolist()
    rank = step.example(importer).dim()
    if rank != 4 or axes is None or sorted(a % rank for a in axes) != [2, 3]:
        raise step.refuse(f"axes {axes}; supported is the mean over the two spatial dimensions, axes [2, 3]")
    importer.call(step, GlobalAvgPool2d())
    if not step.attributes.get("keepdims", 1):
        importer.call(step, Flatten(), step.node.output[0])


HANDLERS: dict[str, Handler] = {
    **ACTIVATIONS,
    **layout.HANDLERS,
    "Add": _add,
    "AveragePool": layout.in_two_dimensions(_average_pool),
    "BatchNormalization": layout.in_two_dimensions(_batch_norm),
    "Clip": _clip,
    "Constant": _constant,
    "Conv": layout.in_two_dimensions(_conv),
    "Dropout": _dropout,
    "Gemm": _gemm,
    "GlobalAveragePool": layout.in_two_dimensions(_global_average_pool),
    "Identity": _identity,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "MaxPool": layout.in_two_dimensions(_max_pool),
    "ReduceMean": layout.over_space(_reduce_mean),
    "Relu": _relu,
    "Softmax": _softmax,
}
