"""DIANA: the limits of its cores (`limits`) and what a layer costs on them (`cost`)."""

from dianaq_quant.targets.diana.limits import (
    ACCUMULATOR_LIMIT,
    ADC,
    ANALOG_COLUMNS,
    ANALOG_INPUT,
    ANALOG_ROWS,
    ANALOG_WEIGHT_BYTES,
    DIGITAL_WEIGHT_BYTES,
    FLOAT32_EXACT_LIMIT,
    INT8,
    L1_BYTES,
    L1_BYTES_SOC,
    L2_BYTES,
    MAX_GAIN_LOG2,
    MAX_SHIFT,
    RECTIFIED,
    TERNARY,
)

__all__ = [
    "ACCUMULATOR_LIMIT",
    "ADC",
    "ANALOG_COLUMNS",
    "ANALOG_INPUT",
    "ANALOG_ROWS",
    "ANALOG_WEIGHT_BYTES",
    "DIGITAL_WEIGHT_BYTES",
    "FLOAT32_EXACT_LIMIT",
    "INT8",
    "L1_BYTES",
    "L1_BYTES_SOC",
    "L2_BYTES",
    "MAX_GAIN_LOG2",
    "MAX_SHIFT",
    "RECTIFIED",
    "TERNARY",
]
