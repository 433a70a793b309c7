"""Signal to quantisation noise in decibels, always a finite number."""

from __future__ import annotations

import math

CEILING_DB = 144.0
"""The largest ratio that is told: an error of 2^-24, which float32 makes itself."""


def decibels(signal: float, noise: float) -> float:
    """`10 log10(signal / noise)` of two sums of squares, within `CEILING_DB` either way.

    Without noise it is the ceiling, whatever the signal; with noise and no signal, the ceiling below zero.
    """
    if not noise:
        return CEILING_DB
    ratio = signal / noise
    return min(max(10 * math.log10(ratio), -CEILING_DB), CEILING_DB) if ratio else -CEILING_DB
