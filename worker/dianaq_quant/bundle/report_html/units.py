"""Numbers as people read them."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
"""The sign of negative numbers; a hyphen is shorter than a plus."""

NONE = "\N{EN DASH}"
"""What stands where there is nothing to tell."""

ARROW = "\N{RIGHTWARDS ARROW}"

TIMES = "\N{MULTIPLICATION SIGN}"

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def si(value: float, unit: str) -> str:
    """Three significant digits with a prefix: `0.000314, "s"` gives `314 µs`."""
    if not value:
        return f"0 {unit}"
    factor, prefix = next(((f, p) for f, p in _PREFIXES if abs(value) >= f), _PREFIXES[-1])
    scaled = value / factor
    digits = max(0, 2 - math.floor(math.log10(abs(scaled))))
    return f"{scaled:.{digits}f} {prefix}{unit}"


def power_of_two(scale: float | None, exponent: int | None) -> str:
    """`2⁻⁵` for a power of two, the value for other scales, a dash for none."""
    if exponent is not None:
        return "2" + str(exponent).translate(_SUPERSCRIPTS)
    return NONE if scale is None else f"{scale:.4g}"


def interval(bounds: tuple[int, int] | None) -> str:
    """`[-128, 127]`, or a dash."""
    return NONE if bounds is None else f"[{signed(bounds[0])}, {signed(bounds[1])}]"


def signed(value: int) -> str:
    """An integer with a proper minus."""
    return str(value).replace("-", MINUS)


def dimensions(shape: list[int] | tuple[int, ...]) -> str:
    """`16 x 32 x 32`, with proper signs."""
    return f" {TIMES} ".join(map(str, shape))


def plural(count: int, what: str, many: str | None = None) -> str:
    """`1 warning`, `2 warnings`, `no warnings`."""
    return f"{count or 'no'} {what if count == 1 else many or what + 's'}"
