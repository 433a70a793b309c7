"""Following a job while it runs.

Each look at the database is a short transaction of its own, in a thread; between looks nothing is held, so
any number of followers cost a query each per `POLL_SECONDS` and no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

from dianaq.events import Event
from dianaq_service.database import Database
from dianaq_service.events import repository

POLL_SECONDS = 0.25
BATCH = 500
MAX_SECONDS = 15 * 60.0
"""Proxies cut streams that never end; ours ends by itself and the client resumes after its last event."""


async def follow(database: Database, job_id: str, after: int, stopping: Callable[[], bool]) -> AsyncIterator[Event]:
    """Every event of the job after number `after`: those there are, then each as it comes.

    Ends after the event of a terminal state; sooner when the server stops or `MAX_SECONDS` have passed.
    """

    def look(after: int) -> tuple[list[Event], bool]:
        with database.read() as session:
            events = repository.page(session, job_id, after, BATCH)
            newest = events[-1].seq if events else after
            return events, repository.is_over(session, job_id, newest)

    deadline = monotonic() + MAX_SECONDS
    while not stopping() and monotonic() < deadline:
        events, over = await asyncio.to_thread(look, after)
        for event in events:
            yield event
            after = event.seq
        if over:
            return
        if not events:
            await asyncio.sleep(POLL_SECONDS)
