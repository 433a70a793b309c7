"""Lists and single things as text for people, or as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces between them; numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = zip(row, widths, numeric, strict=True)
        lines.append("  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in cells).rstrip())
    return "\n".join(lines)


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """One JSON document on standard output."""
    if isinstance(value, BaseModel):
        data: Any = value.model_dump(mode="json", by_alias=True)
    elif isinstance(value, dict):
        data = value
    else:
        data = [entry.model_dump(mode="json", by_alias=True) for entry in value]
    print(json.dumps(data, indent=2))


def when(time: datetime | None) -> str:
    """A moment in the reader's time zone, to the minute."""
    return "-" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")


def shape(dimensions: Sequence[int]) -> str:
    """`3x32x32`."""
    return "x".join(map(str, dimensions))


def size(count: int) -> str:
    """Bytes in the unit that leaves one to four digits."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() and cell.rstrip(" %BKMGi").replace(".", "", 1).replace(",", "").isdigit()
