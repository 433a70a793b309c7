"""Following jobs: one look for all followers, nothing held while they wait, and no reader that holds it up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from threading import Event as Flag
from typing import Any

import fastapi.routing
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dianaq.schemas.events import Event, LogBody
from dianaq_service.events import follow as following
from dianaq_service.events import repository
from dianaq_service.events.follow import BATCH, Feed
from dianaq_service.events.repository import append

from .conftest import Api

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.02)


def _log(api: Api, job: str, *messages: str) -> None:
    with api.services.database.write() as session:
        for message in messages:
            append(session, job, LogBody(message=message))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


async def _collect(events: AsyncIterator[Event], into: list[int]) -> None:
    async for event in events:
        into.append(event.seq)


def test_one_look_serves_all_followers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [str(api.submit()["id"]) for _ in range(3)]
    reads: Counter[str] = Counter()
    page = repository.page

    def counted(session: Session, job_id: str, after: int, limit: int) -> list[Event]:
        reads[job_id] += 1
        return page(session, job_id, after, limit)

    async def scenario() -> None:
        feed = Feed(api.services.database, Flag().is_set)
        seen: list[list[int]] = [[] for _ in range(30)]
        async with asyncio.TaskGroup() as tasks:
            for number, into in enumerate(seen):
                tasks.create_task(_collect(feed.follow(jobs[number % 3], 0), into))
            await _until(lambda: sum(topic.followers for topic in feed._topics.values()) == 30)
            # Nobody holds a connection while nothing happens.
            await _until(lambda: api.services.database._engine.pool.checkedout() == 0)  # type: ignore[attr-defined]
            monkeypatch.setattr(repository, "page", counted)
            for number in range(2, 6):
                _log(api, jobs[0], "line")
                await _until(lambda number=number: all(into[-1] == number for into in seen[::3]))  # type: ignore[misc]
            assert reads == {jobs[0]: 4}
            for job in jobs:
                api.put_in_state(job, "cancelled")
        assert seen[0] == [1, 2, 3, 4, 5, 6]
        assert seen[::3] == [seen[0]] * 10
        assert seen[1::3] + seen[2::3] == [[1, 2]] * 20
        await _until(lambda: feed._poller is not None and feed._poller.done())

    asyncio.run(scenario())


def test_a_slow_reader_misses_nothing_and_holds_little(api: Api) -> None:
    job = str(api.submit()["id"])

    async def scenario() -> None:
        feed = Feed(api.services.database, Flag().is_set)
        slow, quick = feed.follow(job, 1), list[int]()
        task = asyncio.create_task(_collect(feed.follow(job, 1), quick))
        first = asyncio.ensure_future(anext(slow))
        await _until(lambda: job in feed._topics and feed._topics[job].followers == 2)
        _log(api, job, "the first")
        assert (await first).seq == 2
        for _ in range(4):
            _log(api, job, *["line"] * (BATCH - 10))
        last = 2 + 4 * (BATCH - 10)
        await _until(lambda: quick[-1:] == [last])
        assert len(feed._topics[job].events) == BATCH
        api.put_in_state(job, "cancelled")
        assert [event.seq async for event in slow] == list(range(3, last + 2))
        await task
        assert quick == list(range(2, last + 2))

    asyncio.run(scenario())


def test_who_is_ahead_and_who_is_behind_share_a_job(api: Api) -> None:
    job = str(api.submit()["id"])
    _log(api, job, "2", "3", "4")

    async def scenario() -> None:
        feed = Feed(api.services.database, Flag().is_set)
        seen: dict[int, list[int]] = {4: [], 0: [], 9: []}
        async with asyncio.TaskGroup() as tasks:
            for after, into in seen.items():
                tasks.create_task(_collect(feed.follow(job, after), into))
            await _until(lambda: job in feed._topics and feed._topics[job].followers == 3)
            _log(api, job, "5")
            api.put_in_state(job, "cancelled")
        assert seen == {4: [5, 6], 0: [1, 2, 3, 4, 5, 6], 9: []}

    asyncio.run(scenario())


def test_a_look_that_fails_is_made_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job = str(api.submit()["id"])
    failed = Flag()
    news = repository.news

    def fails_once(session: Session, seen: Mapping[str, int], limit: int) -> Any:
        if not failed.is_set():
            failed.set()
            raise OperationalError("SELECT", {}, Exception("the database restarts"))
        return news(session, seen, limit)

    async def scenario() -> None:
        feed = Feed(api.services.database, Flag().is_set)
        seen: list[int] = []
        task = asyncio.create_task(_collect(feed.follow(job, 0), seen))
        await _until(lambda: job in feed._topics)
        monkeypatch.setattr(repository, "news", fails_once)
        await _until(failed.is_set)
        api.put_in_state(job, "cancelled")
        await task
        assert seen == [1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("end", ["stop", "time"])
def test_ends_while_nothing_happens(api: Api, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    job = str(api.submit()["id"])
    if end == "time":
        monkeypatch.setattr(following, "MAX_SECONDS", 0.5)

    async def scenario() -> None:
        stopping = Flag()
        feed = Feed(api.services.database, stopping.is_set)
        seen: list[int] = []
        task = asyncio.create_task(_collect(feed.follow(job, 0), seen))
        await _until(lambda: job in feed._topics)
        if end == "stop":
            stopping.set()
        async with asyncio.timeout(PATIENCE):
            await task
        assert (seen, feed._topics) == ([1], {})

    asyncio.run(scenario())


def test_silence_is_broken_by_comments_and_says_when_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.05)
    job = str(api.submit()["id"])
    lines = []
    with api.client.stream("GET", f"/v1/jobs/{job}/events/stream?after=1") as response:
        for line in response.iter_lines():
            lines.append(line)
            if line.startswith(": ping"):
                break
    assert [line for line in lines if line] == [": following", "retry: 500", ": ping"]
