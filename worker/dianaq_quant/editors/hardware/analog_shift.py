"""The shift of an analog layer, and with it the precision of the integers `k` and `l`."""

from __future__ import annotations

import torch
from torch import Tensor

from dianaq.schemas.ranges import QRange
from dianaq_quant.modules.exact import largest_magnitude
from dianaq_quant.targets.diana import ADC, MAX_SHIFT


def choose_analog_shift(gain: Tensor, bias: Tensor, out_scale: float, qrange: QRange, bits: int, tiles: int = 1) -> int:
    """The n for which `clip((a k + l) >> n)` is nearest to `clip((a gain + bias) / out_scale)`.

    `k = round(gain / step)`, `l = round(bias / step) + 2^(n-1)` with `step = out_scale 2^-n`, both limited to a
    magnitude of `bits`: a larger n rounds them less and limits them more. The error is the mean square over all
    channels and all sums `a` of as many conversions as there are row tiles; of equal ones the smallest n wins.

    Args:
        gain, bias: real value of a converter step, and of the offset, per output channel; (C_out,).
    """
    a = torch.arange(tiles * ADC.lo, tiles * ADC.hi + 1, dtype=torch.float64, device=gain.device)
    gain, bias = gain.detach().double().unsqueeze(1), bias.detach().double().unsqueeze(1)
    wanted = ((a * gain + bias) / out_scale).clamp(qrange.lo, qrange.hi)
    limit = largest_magnitude(bits)
    errors = []
    for n in range(MAX_SHIFT + 1):
        step, half = out_scale * 2.0**-n, 2.0 ** (n - 1) if n else 0.0
        k = torch.round(gain / step).clamp(-limit, limit)
        offset = (torch.round(bias / step) + half).clamp(-limit, limit)
        got = torch.floor((a * k + offset) * 2.0**-n).clamp(qrange.lo, qrange.hi)
        errors.append(float((got - wanted).square().mean()))
    return errors.index(min(errors))
