"""One handler per ONNX operator."""

from __future__ import annotations

import numpy as np
import torch
from onnx import numpy_helper
from torch import nn

from dianaq_quant.importers import arithmetic, layout, padding, pools
from dianaq_quant.importers.activations import ACTIVATIONS
from dianaq_quant.importers.step import Handler, Importer, Step
from dianaq_quant.importers.windows import pair, window
from dianaq_quant.modules.structure import (
    Conv2d,
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


def _conv(importer: Importer, step: Step) -> None:
    weight_name, bias_name = step.node.input[1], (*step.node.input, "")[2]
    if importer.constant(weight_name) is None or (bias_name and importer.constant(bias_name) is None):
        raise step.refuse("the weight and the bias must be constants")
    weight = importer.tensor(weight_name)
    if weight.dim() != 4 or step.example(importer).dim() != 4:
        raise step.refuse(f"only 1-d and 2-d convolutions are supported, the weight's shape is {tuple(weight.shape)}")
    groups = int(step.attributes.get("group", 1))
    kernel = (weight.shape[2], weight.shape[3])
    stride, pads = window(step, importer, kernel)
    dilation = pair(step.attributes.get("dilations", (1, 1)))
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
        turned = importer.constant(step.node.input[0]) is not None
        hint = "; it is the first, whose transposed product x @ W.T would work" if turned else ""
        raise step.refuse(f"the second operand must be a constant{hint}")
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


HANDLERS: dict[str, Handler] = {
    **ACTIVATIONS,
    **layout.HANDLERS,
    **arithmetic.HANDLERS,
    **padding.HANDLERS,
    **pools.HANDLERS,
    "BatchNormalization": layout.in_two_dimensions(_batch_norm),
    "Constant": _constant,
    "Conv": layout.in_two_dimensions(_conv),
    "Dropout": _dropout,
    "Gemm": _gemm,
    "Identity": _identity,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Softmax": _softmax,
}
