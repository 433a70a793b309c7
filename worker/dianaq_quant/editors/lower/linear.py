"""Factors and offsets taken into the parameters of a layer, which then are its own.

Everything is computed in float64 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dianaq_quant.modules.structure import Conv2d

Layer = Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d


def affine_outputs(module: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """`f(x) -> scale * f(x) + shift`, per output channel, in weight and bias; of a BatchNorm in gamma and beta.

    Args:
        scale, shift: (1,) or (channels,), float64.
    """
    assert isinstance(module, Layer | Norm)
    weight, bias = module.weight.detach(), module.bias
    if bool((scale != 1).any()):
        module.weight = _parameter(weight.double() * scale.reshape(-1, *(1,) * (weight.dim() - 1)))
    before = torch.zeros(weight.shape[0], dtype=torch.float64) if bias is None else bias.detach().double()
    after = before * scale + shift
    if bias is not None or bool((after != 0).any()):
        module.bias = _parameter(after)


def affine_inputs(module: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """`f(x) -> f(scale * x + shift)`, per input channel; of a convolution only without padding if it has a shift."""
    assert isinstance(module, Layer)
    weight = module.weight.detach().double()
    groups = module.groups if isinstance(module, Conv2d) else 1
    inputs = weight.shape[1] * groups
    # (groups, outputs of a group, inputs of a group, taps)
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    scales, shifts = (v.expand(inputs).reshape(groups, 1, -1, 1) for v in (scale, shift))
    if bool((shift != 0).any()):
        offset = (split * shifts).sum((2, 3)).flatten()
        module.bias = _parameter(offset if module.bias is None else module.bias.detach().double() + offset)
    if bool((scale != 1).any()):
        module.weight = _parameter((split * scales).reshape(weight.shape))


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float())
