"""Charts of the report's page: whatever the values are, everything is drawn inside."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dianaq.schemas.report import Histogram
from dianaq_quant.bundle.report_html.bars import Bar, bar_chart
from dianaq_quant.bundle.report_html.charts import HEIGHT, WIDTH, Line, histogram_chart, line_chart

VALUES = st.floats(allow_nan=True, allow_infinity=True)
SHARES = st.floats(0, 1)


def numbers(markup: str, *names: str) -> list[float]:
    return [float(v) for name in names for v in re.findall(rf' {name}="([^"]+)"', markup)]


def assert_inside(markup: str) -> None:
    assert all(-1 <= x <= WIDTH + 1 for x in numbers(markup, "x", "x1", "x2", "cx"))
    assert all(-1 <= y <= HEIGHT + 1 for y in numbers(markup, "y", "y1", "y2", "cy"))


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_any_values_can_be_drawn(values: list[float]) -> None:
    line = Line("a", [(float(i), y) for i, y in enumerate(values, 1)])
    markup = line_chart([line], x_axis="x", title="t", y_text=str)
    assert markup.count("<circle") == sum(math.isfinite(v) and abs(v) < 1e100 for v in values)
    assert_inside(markup)


@given(st.lists(st.tuples(SHARES, st.floats(0, 0.7)), min_size=1, max_size=6))
def test_shares_stay_below_one(points: list[tuple[float, float]]) -> None:
    line = Line("a", [(float(i), y) for i, (y, _) in enumerate(points)], [error for _, error in points])
    markup = line_chart([line], x_axis="x", title="t", y_text=lambda y: f"y={y!r}", highest=1.0)
    assert all(float(y) <= 1 for y in re.findall(r"y=([-+.\de]+)</text>", markup))
    assert_inside(markup)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, -3.0, 1e-320])
def test_one_value_alone_has_an_axis(value: float) -> None:
    markup = line_chart([Line("a", [(1.0, value)])], x_axis="x", title="t", y_text=lambda y: f"y={y:g}", highest=1.0)
    assert len(set(re.findall(r">y=([^<]+)</text>", markup))) >= 2


def test_nothing_finite_is_said_in_words() -> None:
    markup = line_chart([Line("a", [(1.0, math.nan)])], x_axis="x", title="loss", y_text=str)
    assert "loss: no finite values" in markup


def test_ticks_are_round() -> None:
    line = Line("a", [(0.0, 0.12), (1.0, 0.87)])
    markup = line_chart([line], x_axis="x", title="t", y_text=lambda y: f"y={y:g}")
    assert re.findall(r">y=([^<]+)</text>", markup) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_lines_differ_by_more_than_colour() -> None:
    lines = [Line(name, [(0.0, 0.0), (1.0, 1.0)], colour=i) for i, name in enumerate("abcd")]
    markup = line_chart(lines, x_axis="x", title="t", y_text=str)
    dashes = re.findall(r'class="curve s(\d)"(?: stroke-dasharray="([^"]+)")?', markup)
    assert len(set(dashes)) == 4
    assert len({dash for _, dash in dashes}) == 4


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=64).filter(any), st.integers(-128, 127))
def test_histograms_have_a_bar_for_every_bin_in_use(counts: list[int], lo: int) -> None:
    markup = histogram_chart(Histogram(lo=lo, step=2, counts=counts), "conv")
    assert markup.count("M") == sum(count > 0 for count in counts)
    assert f"from {lo} to {lo + 2 * len(counts) - 1}" in markup


def test_bars_share_one_scale() -> None:
    markup = bar_chart("t", [Bar("a", [(1.0, 0), (1.0, 1)], "2"), Bar("b", [(4.0, 0)], "4"), Bar("c", [(0.0, 0)], "0")])
    assert re.findall(r"width:([\d.]+)%", markup) == ["25.00", "25.00", "100.00"]
    assert "width" not in bar_chart("t", [Bar("a", [(0.0, 0)], "0")])
