"""`/v1/jobs/{id}/events`: a job's history, as JSON pages and as a stream.

Two routes, because they answer differently: the page returns at once with what is there, the stream
(`/events/stream`, server-sent events) stays until the job has ended. A stream's `id:` is the event's `seq`;
whoever was cut off resumes with `Last-Event-ID` or `?after=`. The events are the same on both. In silence FastAPI
sends a comment every 15 seconds, which shows either side that the other one is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from dianaq.schemas.events import Event
from dianaq.schemas.resources import Page
from dianaq_service.events import repository
from dianaq_service.web.deps import OwnJob, ServicesDep

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])

After = Annotated[int, Query(ge=0, description="return the events after this number")]

RECONNECT_MILLISECONDS = 500
"""How long a client waits before it comes back to a stream that has ended: told at the beginning of each."""


@router.get("")
def list_events(
    services: ServicesDep,
    job_id: OwnJob,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Page[Event]:
    """The events after number `after`, oldest first; `next` is the `after` of the following page, if any."""
    with services.database.read() as session:
        events = repository.page(session, job_id, after, limit + 1)
    more = len(events) > limit
    return Page(items=events[:limit], next=str(events[limit - 1].seq) if more else None)


@router.get("/stream", response_class=EventSourceResponse)
async def stream_events(
    services: ServicesDep,
    job_id: OwnJob,
    after: After = 0,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Replays the events after `Last-Event-ID` (else `after`), then follows until the job has ended."""
    start = after if last_event_id is None else last_event_id
    yield ServerSentEvent(comment="following", retry=RECONNECT_MILLISECONDS)
    async for event in services.feed.follow(job_id, start):
        yield ServerSentEvent(data=event, id=str(event.seq))
