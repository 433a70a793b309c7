"""Charts as inline SVG: lines with or without error bars, and histograms. Each says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dianaq.schemas.report import Histogram
from dianaq_quant.bundle.report_html.markup import Markup, element, join
from dianaq_quant.bundle.report_html.units import MINUS, signed

WIDTH, HEIGHT = 420, 230
"""Of a line chart, in its own units: as wide as a phone, so that text keeps its size there."""

LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
"""Room around the plotted area for tick labels and the name of the axis."""

DASHES = (None, "7 4", "2 3", "9 3 2 3")
"""Lines differ by their dashes as well as by colour."""

TICKS = 5
"""About as many ticks as labels fit under a chart on a phone."""


LARGEST = 1e100
"""Beyond it, and below its reciprocal, float64 has no room left for the arithmetic of axes."""

SMALLEST_SPREAD = 1e-9
"""Relative to the values: below it they count as one, and float64 has digits to spare."""


@dataclass(frozen=True)
class Line:
    """A named curve: points `(x, y)`, and the half height of each one's error bar, if there are any."""

    name: str
    points: Sequence[tuple[float, float]]
    errors: Sequence[float] = ()
    colour: int = 0


def line_chart(
    lines: Sequence[Line], *, x_axis: str, title: str, y_text: Callable[[float], str], highest: float | None = None
) -> Markup:
    """Curves over a common axis, with a legend where there are several.

    Args:
        y_text: how values are written.
        highest: what no value can exceed, error bars included.
    """
    ends = [
        (x, y - error, y + error)
        for line in lines
        for (x, y), error in zip(line.points, line.errors or [0.0] * len(line.points), strict=True)
        if _drawable(y) and _drawable(error)
    ]
    if not ends:
        return element("p", f"{title}: no finite values.", class_="soft")
    top = math.inf if highest is None else highest
    xs, ys = _ticks([x for x, _, _ in ends]), _ticks([min(y, top) for _, *pair in ends for y in pair], top)
    across, up = _Axis(xs, LEFT, WIDTH - RIGHT), _Axis(ys, HEIGHT - BOTTOM, TOP)
    drawn = [_grid(across, up, xs, ys, y_text)]
    drawn += [_curve(line, across, up, top) for line in lines]
    drawn.append(element("text", x_axis, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor="middle"))
    words = "; ".join(f"{line.name} from {y_text(line.points[0][1])} to {y_text(line.points[-1][1])}" for line in lines)
    picture = element(
        "svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} over {x_axis}: {words}"
    )
    return element("figure", element("figcaption", title), picture, _legend(lines) if len(lines) > 1 else None)


def _drawable(value: float) -> bool:
    """Whether a value can be on a chart: a training that diverges gives others too."""
    return math.isfinite(value) and abs(value) < LARGEST


class _Axis:
    """From values to places."""

    def __init__(self, ticks: Sequence[float], start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = ticks[0], ticks[-1], start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _ticks(values: Sequence[float], highest: float = math.inf) -> list[float]:
    """Round numbers around some values, at least two; none beyond the highest."""
    low, high = min(values), max(values)
    spread, size = high - low, max(abs(low), abs(high))
    if size < 1 / LARGEST:
        spread = 1.0
    elif spread <= SMALLEST_SPREAD * size:
        spread = size
    rough = spread / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if last == first:
        first, last = (first - 1, last) if high >= highest else (first, last + 1)
    ticks = [step * i for i in range(first, last + 1)]
    return [tick for tick in ticks if tick < highest] + ([highest] if ticks[-1] >= highest else [])


def _grid(across: _Axis, up: _Axis, xs: Sequence[float], ys: Sequence[float], y_text: Callable[[float], str]) -> Markup:
    parts = []
    for y in ys:
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=up(y), y2=up(y), class_="grid"))
        parts.append(element("text", y_text(y), x=LEFT - 6, y=up(y) + 4, text_anchor="end"))
    for x in xs:
        parts.append(element("text", f"{x:g}", x=across(x), y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    base = HEIGHT - BOTTOM
    return join(*parts, element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))


def _curve(line: Line, across: _Axis, up: _Axis, top: float) -> Markup:
    parts, colour = [], line.colour % len(DASHES)
    errors = line.errors or [0.0] * len(line.points)
    known = [(across(x), y, e) for (x, y), e in zip(line.points, errors, strict=True) if _drawable(y) and _drawable(e)]
    places = [f"{x:.1f} {up(y):.1f}" for x, y, _ in known]
    dash = DASHES[colour]
    parts.append(element("path", d="M" + "L".join(places), class_=f"curve s{colour}", stroke_dasharray=dash))
    for x, y, error in known:
        if error:
            low, high = y - error, min(y + error, top)
            for x1, x2, y1, y2 in ((x, x, low, high), (x - 4, x + 4, high, high), (x - 4, x + 4, low, low)):
                parts.append(element("line", x1=x1, x2=x2, y1=up(y1), y2=up(y2), class_=f"s{colour}"))
        parts.append(element("circle", cx=x, cy=up(y), r=2.5, class_=f"dot d{colour}"))
    return join(*parts) if known else Markup("")


def _legend(lines: Sequence[Line]) -> Markup:
    entries = []
    for line in lines:
        colour = line.colour % len(DASHES)
        stroke = element("path", d="M0 5L36 5", class_=f"curve s{colour}", stroke_dasharray=DASHES[colour])
        entries.append(element("li", element("svg", stroke, viewBox="0 0 36 10", aria_hidden="true"), line.name))
    return element("ul", *entries, class_="legend")


BARS_WIDTH, BARS_HEIGHT = 256, 90
"""Of a histogram, in its own units: room for 64 bins of 4 units."""


def histogram_chart(found: Histogram, name: str) -> Markup:
    """Counts per bin, from the least to the largest weight."""
    total, tallest = sum(found.counts), max(found.counts)
    wide = BARS_WIDTH / len(found.counts)
    gap = min(1.0, wide / 6)
    bars = [
        f"M{i * wide + gap / 2:.2f} {BARS_HEIGHT}v{-count / tallest * (BARS_HEIGHT - 4):.2f}"
        f"h{wide - gap:.2f}V{BARS_HEIGHT}z"
        for i, count in enumerate(found.counts)
        if count
    ]
    last = found.lo + found.step * len(found.counts) - 1
    return element(
        "svg",
        element("path", d="".join(bars), class_="d0"),
        element("line", x1=0, x2=BARS_WIDTH, y1=BARS_HEIGHT, y2=BARS_HEIGHT, class_="axis"),
        element("text", signed(found.lo), x=0, y=BARS_HEIGHT + 14),
        element("text", str(last).replace("-", MINUS), x=BARS_WIDTH, y=BARS_HEIGHT + 14, text_anchor="end"),
        viewBox=f"0 0 {BARS_WIDTH} {BARS_HEIGHT + 18}",
        role="img",
        aria_label=f"Histogram of the {total:,} weights of {name}, from {found.lo} to {last}",
    )
