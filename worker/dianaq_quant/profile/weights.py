"""How a layer's integer weights are distributed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dianaq.schemas.ranges import QRange

MAX_BINS = 64
"""Bins of a histogram: 8-bit weights take four integers each, which still shows their shape in a small plot."""


def histogram(weight: Tensor, qrange: QRange | None = None) -> dict[str, Any]:
    """Counts per bin of `step` integers, the first bin beginning at `lo`; and the share of saturated weights.

    Args:
        weight: integers.
        qrange: the weights' range; those at its ends are saturated. None, or a range that is all ends and zero
            (ternary, binary), has no such share.
    """
    values = weight.detach().flatten().long()
    lo, hi = int(values.min()), int(values.max())
    step = -(-(hi - lo + 1) // MAX_BINS)
    counts = torch.bincount((values - lo) // step)
    entry: dict[str, Any] = {"lo": lo, "step": step, "counts": counts.tolist()}
    if qrange is not None and qrange.hi - qrange.lo > 2:
        ends = (values == qrange.lo) | (values == qrange.hi)
        entry["saturated"] = round(float(ends.double().mean()), 6)
    return entry
