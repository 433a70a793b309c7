"""Horizontal bars, one per layer, as a list that reads well aloud: name, bar, value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dianaq_quant.bundle.report_html.markup import Content, Markup, element


@dataclass(frozen=True)
class Bar:
    """A bar of one or more parts, each of a colour (0 to 3); `text` is its value in words."""

    name: str
    parts: Sequence[tuple[float, int]]
    text: str


def bar_chart(title: str, bars: Sequence[Bar], *, full: float | None = None, key: Sequence[str] = ()) -> Markup:
    """Bars beside each other.

    Args:
        full: what fills the whole width; default: the longest bar.
        key: names of the colours.
    """
    longest = full or max((sum(value for value, _ in bar.parts) for bar in bars), default=0.0) or 1.0
    rows = []
    for bar in bars:
        parts = [
            element("i", class_=f"f{colour}", style=f"width:{min(100.0, 100 * value / longest):.2f}%")
            for value, colour in bar.parts
            if value > 0
        ]
        drawn = element("span", *parts, class_="bar", aria_hidden="true")
        rows.append(
            element(
                "div",
                element("dt", bar.name, title=bar.name),
                element("dd", drawn),
                element("dd", bar.text, class_="n"),
            )
        )
    named: list[Content] = [
        element("li", element("span", class_=f"key f{colour}", aria_hidden="true"), name)
        for colour, name in enumerate(key)
    ]
    return element(
        "figure",
        element("figcaption", title),
        element("ul", *named, class_="legend") if named else None,
        element("dl", *rows, class_="bars"),
    )
