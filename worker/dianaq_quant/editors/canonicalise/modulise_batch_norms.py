"""Batch normalisations in every spelling become modules that have all four tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader
from dianaq_quant.editors.canonicalise.traced_constants import constant, parameter, shared_note
from dianaq_quant.modules.layout import of_line


def batch_norm(
    call: Call,
    input: fx.Node,
    running_mean: object,
    running_var: object,
    weight: object = None,
    bias: object = None,
    training: object = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Chain:
    """`F.batch_norm` in evaluation."""
    if training is True:
        raise call.refuse("training=True in evaluation: it needs running statistics; pass training=self.training")
    tensors = [constant(call, value) for value in (running_mean, running_var, weight, bias)]
    return _batch_norm(call, input, tensors, momentum, eps, shared_note(weight))


def batch_norm_module(call: Call, input: fx.Node) -> Chain:
    m = call.module
    return _batch_norm(call, input, [m.running_mean, m.running_var, m.weight, m.bias], m.momentum, m.eps, "")


def _batch_norm(
    call: Call, input: fx.Node, tensors: list[Tensor | None], momentum: float | None, eps: float, note: str
) -> Chain:
    mean, variance, weight, bias = tensors
    if mean is None or variance is None:
        raise call.refuse(
            "it has no running statistics, so that a sample's result depends on the other samples; "
            "track_running_stats=True would work"
        )
    shape = call.shape(input)
    if len(shape) not in (1, 2, 3):
        raise call.refuse(f"its input's shape is {shape} per sample; (C,), (C, L) and (C, H, W) would work")
    kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    norm = kind(len(mean), eps, momentum, device="meta")
    norm.running_mean, norm.running_var = mean, variance
    norm.num_batches_tracked = torch.zeros((), dtype=torch.long)
    norm.weight, norm.bias = _affine(weight, mean, 1.0), _affine(bias, mean, 0.0)
    return Chain((input,), of_line(shape, (norm,)) if len(shape) == 2 else (norm,), note)


def _affine(given: Tensor | None, like: Tensor, neutral: float) -> nn.Parameter:
    """Slope or offset; a neutral one that is not trained where the user's BatchNorm has none."""
    if given is not None:
        return parameter(given)
    return nn.Parameter(torch.full_like(like, neutral), requires_grad=False)


class ModuliseBatchNorms(CallEditor):
    """`batch_norm(x, mean, var, gamma, beta) -> BatchNorm2d()(x)`; without gamma and beta they are 1 and 0."""

    readers: ClassVar[Mapping[Any, Reader]] = {F.batch_norm: batch_norm} | dict.fromkeys(
        (nn.BatchNorm1d, nn.BatchNorm2d), batch_norm_module
    )
