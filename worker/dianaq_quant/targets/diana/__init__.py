"""DIANA: the limits of its cores (`limits`) and what a layer costs on them (`cost`)."""

from dianaq_quant.targets.diana.limits import (
    ACCUMULATOR_LIMIT,
    ADC,
    ANALOG_COLUMNS,
    ANALOG_INPUT,
    ANALOG_ROWS,
    FLOAT32_EXACT_LIMIT,
    INT8,
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
    "FLOAT32_EXACT_LIMIT",
    "INT8",
    "MAX_GAIN_LOG2",
    "MAX_SHIFT",
    "RECTIFIED",
    "TERNARY",
]
