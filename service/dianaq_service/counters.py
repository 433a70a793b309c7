"""Counts that grow in the database, whichever process they come from; `/metrics` reads them.

They are kept apart from the rows they count, so that a scrape is cheap however many jobs there were, and deleting a job
takes nothing back.
"""

from __future__ import annotations

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dianaq_service.database import CounterRow

BUCKETS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)
"""Upper bounds in seconds: of steps (milliseconds to seconds) and of stages (seconds to hours)."""
SUM, BEYOND = "sum", "+Inf"


def count(session: Session, name: str, label: str = "", bucket: str = "", by: float = 1) -> None:
    """Add to a count, as part of the session's transaction. `label` must come from a short list."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(CounterRow).values(name=name, label=label, bucket=bucket, value=by)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[CounterRow.name, CounterRow.label, CounterRow.bucket],
            set_={"value": CounterRow.value + statement.excluded.value},
        )
    )


def observe(session: Session, name: str, label: str, seconds: float, times: int = 1) -> None:
    """Add `times` observations of a duration to a histogram."""
    bound = next((f"{bound:g}" for bound in BUCKETS if seconds <= bound), BEYOND)
    count(session, name, label, bound, times)
    count(session, name, label, SUM, seconds * times)
