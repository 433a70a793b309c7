"""DIANA's digital core: what it stores and computes.

Sources: [hw] Ueyoshi et al., ISSCC 2022, and Houshmand et al., JSSC 58(1):203; [compiler] the rules that the
public DORY and HTVM front ends enforce.
"""

from __future__ import annotations

from dianaq.ranges import QRange

INT8 = QRange(bitwidth=8)
"""Digital weights, and activations that carry a sign [hw]."""

RECTIFIED = QRange(bitwidth=7, signed=False)
"""Activations after a ReLU: the non-negative half of int8, [0, 127] [hw]."""

MAX_SHIFT = 31
"""The requantisation is an arithmetic shift of the int32 accumulator by 0..31 places [hw]."""

ACCUMULATOR_LIMIT = 2**31
"""Accumulator and bias are int32 [hw]."""

FLOAT32_EXACT_LIMIT = 2**24
"""float32 holds every integer of magnitude up to 2^24 (IEEE 754): sums that stay below are exact in any order."""
