"""HTML from text. Names of layers come from users' files: all text is escaped unless it is markup already."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_VOID = frozenset({"meta", "br", "line", "path", "rect", "circle"})
"""Elements without content; those of SVG are closed at once, which HTML allows there."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | Markup | None


def element(tag: str, /, *content: Content, **attributes: str | float | bool | None) -> Markup:
    """`<tag attributes>content</tag>`, content and attributes escaped.

    Args:
        content: text or markup; None is left out.
        attributes: `class_` stands for `class`, other underscores for hyphens; None and False are left out.
    """
    opening = tag + "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{opening}>" if tag in ("meta", "br") else f"<{opening}/>")
    return Markup(f"<{opening}>{join(*content)}</{tag}>")


def join(*content: Content) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in content if part is not None))


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f" {name}" if value is True else f' {name}="{escape(text)}"'


def table(
    caption: str, header: Sequence[Content], rows: Sequence[Sequence[Content]], *, numeric: Sequence[int] = ()
) -> Markup:
    """A table in a box of its own that scrolls sideways; the first cell of a row is its heading.

    Args:
        numeric: indices of the columns that are aligned to the right.
    """
    heads = [element("th", text, scope="col", class_="n" if i in numeric else None) for i, text in enumerate(header)]
    body = []
    for first, *rest in rows:
        cells = [element("td", cell, class_="n" if i in numeric else None) for i, cell in enumerate(rest, 1)]
        body.append(element("tr", element("th", first, scope="row"), *cells))
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *body),
    )
    return element("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def section(title: str, identifier: str, *content: Content) -> Markup:
    """A part of the page with its heading."""
    return element("section", element("h2", title, id=identifier), *content, aria_labelledby=identifier)


def details(summary: str, *content: Content) -> Markup:
    """Something that the reader may unfold."""
    return element("details", element("summary", summary), *content)
