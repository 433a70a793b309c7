"""DIANA: the limits of its cores (`limits`), what a layer costs on them (`cost`), and whether its compilers put it
there (`placement`)."""

from dianaq_quant.targets.diana.limits import (
    ACCUMULATOR_LIMIT,
    ADC,
    ANALOG_COLUMNS,
    ANALOG_INPUT,
    ANALOG_ROWS,
    DIGITAL_WEIGHT_BYTES,
    FLOAT32_EXACT_LIMIT,
    INT8,
    KERNEL_SIZES,
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
    "DIGITAL_WEIGHT_BYTES",
    "FLOAT32_EXACT_LIMIT",
    "INT8",
    "KERNEL_SIZES",
    "MAX_GAIN_LOG2",
    "MAX_SHIFT",
    "RECTIFIED",
    "TERNARY",
]
