"""Cursor pages over rows whose ids sort by time."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")


def newest_first(
    session: Session, query: Select[Row], key: InstrumentedAttribute[str], cursor: str | None, limit: int
) -> tuple[list[Any], str | None]:
    """A page of the query's rows, and the cursor of the page after it, if there is one."""
    if cursor is not None:
        query = query.where(key < cursor)
    rows: list[Any] = list(session.scalars(query.order_by(key.desc()).limit(limit + 1)))
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None
