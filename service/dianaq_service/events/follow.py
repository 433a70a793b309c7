"""Following jobs while they run: one look at the database for everybody who follows.

A follower first reads what there is, page by page, and then waits at the job's topic. A single task looks for all
topics at once: a short transaction per tick, with one query for the jobs that have grown and one for the new events
of each of those, however many follow it. Between looks nothing is held: no session, no connection.

A topic keeps its newest events; a follower keeps only the number of its last one and the few that it is giving out.
One that is slower than its job finds that the topic has moved on, and reads what it missed from the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic

from dianaq.schemas.events import Event
from dianaq_service.database import Database
from dianaq_service.events import repository
from dianaq_service.events.repository import News

POLL_SECONDS = 0.1
"""An event waits half of it on average, of the second that it may take; a look is a query of a millisecond."""
BATCH = 100
"""Events that a topic keeps, and that a follower holds at most: seconds of a busy job, and some 100 KB."""
MAX_SECONDS = 15 * 60.0
"""Proxies cut streams that never end; ours ends by itself and the client resumes after its last event."""

_log = logging.getLogger(__name__)


@dataclass
class _Topic:
    """A job that is followed. `events` are all that it has with a number above `since`, up to `seen`."""

    since: int
    seen: int
    over: bool = False
    """Nothing comes after `seen`."""
    followers: int = 0
    events: deque[Event] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, news: News) -> None:
        self.events.extend(event for event in news.events if event.seq > self.seen)
        while len(self.events) > BATCH:
            self.since = self.events.popleft().seq
        self.seen, self.over = max(self.seen, news.seen), news.over
        self.wake()

    def after(self, number: int) -> News:
        events = list(islice((event for event in self.events if event.seq > number), BATCH))
        return News(events, max(self.seen, number), self.over)

    def wake(self) -> None:
        """Let those look who wait now; whoever comes later waits for the next change."""
        self.changed.set()
        self.changed = asyncio.Event()


class Feed:
    """The followers of one API process. Lives in its event loop, and reads in threads.

    Args:
        stopping: whether the server is asked to stop, which ends every stream.
    """

    def __init__(self, database: Database, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._stopping = stopping
        self._topics: dict[str, _Topic] = {}
        self._poller: asyncio.Task[None] | None = None

    async def follow(self, job_id: str, after: int) -> AsyncIterator[Event]:
        """Every event of the job after number `after`: those there are, then each as it comes.

        Ends after the event of a terminal state; sooner when the server stops or `MAX_SECONDS` have passed.
        """
        deadline = monotonic() + MAX_SECONDS
        news = News([], after, over=False)
        while self._goes_on(deadline):
            news = await self._read(job_id, news.seen)
            for event in news.events:
                yield event
            if news.over:
                return
            if not news.events:
                break
        with self._topic(job_id, news.seen) as topic:
            while self._goes_on(deadline):
                # Taken before the look, so that no change during it is slept through.
                changed = topic.changed
                news = topic.after(news.seen) if news.seen >= topic.since else await self._read(job_id, news.seen)
                for event in news.events:
                    yield event
                if news.over:
                    return
                if not news.events:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(deadline - monotonic()):
                            await changed.wait()

    def _goes_on(self, deadline: float) -> bool:
        return not self._stopping() and monotonic() < deadline

    @contextmanager
    def _topic(self, job_id: str, seen: int) -> Iterator[_Topic]:
        topic = self._topics.setdefault(job_id, _Topic(since=seen, seen=seen))
        topic.followers += 1
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield topic
        finally:
            topic.followers -= 1
            if not topic.followers:
                del self._topics[job_id]

    async def _read(self, job_id: str, after: int) -> News:
        found = await asyncio.to_thread(self._look, {job_id: after})
        return found.get(job_id, News([], after, over=False))

    def _look(self, seen: Mapping[str, int]) -> dict[str, News]:
        with self._database.read() as session:
            return repository.news(session, seen, BATCH)

    async def _poll(self) -> None:
        """Bring the topics what is new, as long as there are any."""
        while self._topics:
            await asyncio.sleep(POLL_SECONDS)
            if self._stopping():
                for topic in self._topics.values():
                    topic.wake()
                continue
            seen = {job_id: topic.seen for job_id, topic in self._topics.items() if not topic.over}
            try:
                found = await asyncio.to_thread(self._look, seen)
            except Exception as error:
                # Whoever follows waits for this task: it goes on whatever happened, and tries again.
                _log.warning("looking for new events failed: %s", error)
                continue
            for job_id, news in found.items():
                # Its last follower may have left in the meantime.
                if job_id in self._topics:
                    self._topics[job_id].add(news)
