"""Counts that grow in the database, whichever process they come from; `/metrics` reads them.

They are kept apart from the rows they count, so that a scrape is cheap however many jobs there were, and deleting a job
takes nothing back.

Everybody counts in the same few rows. A transaction therefore counts in memory, and writes its counts when it commits,
after all else and in one order: so nobody waits for a count for longer than a commit takes, and no two transactions can
each hold one that the other waits for.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import event
from sqlalchemy.orm import Session

from dianaq_service.database import CounterRow, Upsert

BUCKETS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)
"""Upper bounds in seconds: of steps (milliseconds to seconds) and of stages (seconds to hours)."""
SUM, BEYOND = "sum", "+Inf"


_COUNTS = "counts"
"""Where a session keeps what it has counted."""

_ADD = Upsert(CounterRow, lambda more: {"value": CounterRow.value + more.value})


def count(session: Session, name: str, label: str = "", bucket: str = "", by: float = 1) -> None:
    """Add to a count, as part of the session's transaction. `label` must come from a short list."""
    session.info.setdefault(_COUNTS, Counter())[name, label, bucket] += by


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    # A savepoint's end is none of the transaction.
    if session.in_nested_transaction() or not (counts := session.info.pop(_COUNTS, None)):
        return
    rows = [dict(zip(("name", "label", "bucket"), key, strict=True), value=counts[key]) for key in sorted(counts)]
    # What is not written yet would come after them.
    session.flush()
    _ADD.execute(session, rows)


def observe(session: Session, name: str, label: str, seconds: float, times: int = 1) -> None:
    """Add `times` observations of a duration to a histogram."""
    bound = next((f"{bound:g}" for bound in BUCKETS if seconds <= bound), BEYOND)
    count(session, name, label, bound, times)
    count(session, name, label, SUM, seconds * times)
