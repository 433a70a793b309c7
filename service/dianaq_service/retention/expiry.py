"""When things end: artifacts some time after their job, uploads some time after the last job that used them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from dianaq_service.database import JobRow
from dianaq_service.database.tables import UploadRow


def after(moment: datetime | None, days: float) -> datetime | None:
    """`days` after a moment; None, which is never, before it has come and for 0 days."""
    return moment + timedelta(days=days) if moment is not None and days else None


def artifacts_expire(job: JobRow, days: float) -> datetime | None:
    """When the artifacts of a job go, or went; None for a job that has none."""
    return None if job.state != "succeeded" else job.expired or after(job.finished, days)


def uploads_expire(
    session: Session, rows: Collection[UploadRow], used_by: InstrumentedAttribute[Any], days: float
) -> dict[str, datetime | None]:
    """When each of some uploads of one kind goes; None for those that a job uses now.

    Args:
        used_by: the column of a job that refers to the kind.
    """
    query = (
        select(used_by, func.max(JobRow.finished), func.count() - func.count(JobRow.finished))
        .where(used_by.in_([row.id for row in rows]))
        .group_by(used_by)
    )
    uses = {upload: (last, unfinished) for upload, last, unfinished in session.execute(query)}

    def expires(row: UploadRow) -> datetime | None:
        last, unfinished = uses.get(row.id, (None, 0))
        return None if unfinished else after(max(row.created, last or row.created), days)

    return {row.id: expires(row) for row in rows}
