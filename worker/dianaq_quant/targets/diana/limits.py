"""DIANA's two cores: what they store and compute.

Sources: [hw] Ueyoshi et al., ISSCC 2022, and Houshmand et al., JSSC 58(1):203; [compiler] the rules that the
public DORY and HTVM front ends enforce; [assume] no public source.
"""

from __future__ import annotations

from dianaq.schemas.ranges import QRange

INT8 = QRange(bitwidth=8, signed=True)
"""Digital weights, and activations that carry a sign [hw]."""

RECTIFIED = QRange(bitwidth=7, signed=False)
"""Activations after a ReLU: the non-negative half of int8, [0, 127] [hw]; both cores read them."""

MAX_SHIFT = 31
"""The requantisation is an arithmetic shift of the int32 accumulator by 0..31 places [hw]."""

ACCUMULATOR_LIMIT = 2**31
"""Accumulator and bias are int32 [hw]."""

FLOAT32_EXACT_LIMIT = 2**24
"""float32 holds every integer of magnitude up to 2^24 (IEEE 754): sums that stay below are exact in any order."""

TERNARY = QRange(n_levels=3, offset=-1)
"""Weights of the analog array [hw]."""

ANALOG_INPUT = QRange(limpbitwidth=7, signed=True)
"""Signed activations that the analog array reads: 7 bits in sign and magnitude, [-63, 63] [hw]. Rectified ones use
the seven bits for the magnitude, [0, 127], as the compilers clip them [compiler]."""

ANALOG_ROWS = 1152
"""Rows of the analog array: C_in kh kw weights of an output channel [hw]."""

ANALOG_COLUMNS = 512
"""Columns of the analog array: output channels [hw]."""

INT16 = (-(2**15), 2**15 - 1)
"""HTVM stores the factors k and the offsets l of an analog layer's channels in int16, without a check [compiler]."""

L2_BYTES = 512_000
"""The memory that holds all weights and the activations between layers [compiler: DORY's hardware description]."""

L1_TVM_BYTES = 256_000
"""Activations of a layer, input and output, without tiling in HTVM [compiler: DORY's Diana_TVM]."""

L1_SOC_BYTES = 128_000
"""Activations of a layer, input and output, without tiling in DORY [compiler: DORY's Diana_SoC]."""

DIGITAL_WEIGHT_BYTES = 65_536
"""Weights and biases of a layer on the digital core, without tiling [compiler: DORY's hardware description]."""

ANALOG_WEIGHT_BYTES = 147_456
"""Weights of a layer on the analog core: 1152 x 512 cells of two bits [compiler: DORY's hardware description]."""

ADC = QRange(bitwidth=6, signed=True)
"""Integers of the converter at each column, [-32, 31] [hw]."""

MAX_GAIN_LOG2 = 15
"""Largest gain of the converter as a power of two: beyond it, no sum of 1152 seven-bit inputs (below 2^18) leaves
three bits of the six [assume]."""

KERNEL_SIZES = (1, 3, 5, 7)
"""Heights and widths of a kernel that the digital core's library has code for [compiler]."""
