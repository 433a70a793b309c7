"""Following a job's events across dropped connections, restarts of the service and proxies that buffer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx

from dianaq._transport import Transport
from dianaq.errors import ServiceError, ServiceUnavailable
from dianaq.schemas.events import TERMINAL_STATES, Event, StateBody
from dianaq.schemas.resources import Job, Page

HEARTBEAT_SECONDS = 30.0
"""The service sends a comment every 15 s of silence; two of them missing means that the connection is dead."""

PATIENCE_SECONDS = 60.0
"""How long the service may be away before the follower gives up: time enough to be restarted."""

RETRY_SECONDS = 0.5
PAGE_EVENTS = 500

FRUITLESS_STREAMS = 3
"""So many streams in a row that broke without an event: something in between does not let streams through."""


def follow(transport: Transport, job_id: str, after: int = 0, deadline: float | None = None) -> Iterator[Event | None]:
    """A job's events after number `after`, each once and in order, until the job has ended.

    Now and then yields None, so that the caller can look at the clock.

    Args:
        deadline: time.monotonic() at which the caller will stop; near it, no connection is held open.

    Raises:
        ServiceUnavailable: no answer for `PATIENCE_SECONDS`.
        NotFound, Unauthorised: as the service says.
    """
    fruitless = 0
    away_since: float | None = None
    while True:
        near = deadline is not None and deadline - time.monotonic() < HEARTBEAT_SECONDS
        streaming = not near and fruitless < FRUITLESS_STREAMS
        connected = came = False
        try:
            for event in _stream(transport, job_id, after) if streaming else _poll(transport, job_id, after):
                connected, away_since = True, None
                if event is None:
                    yield None
                    if deadline is not None and deadline - time.monotonic() < HEARTBEAT_SECONDS:
                        break
                elif event.seq > after:
                    after, came = event.seq, True
                    yield event
                    if _is_last(event):
                        return
            # An ended job ends the wait even if the event that says so never came.
            if not came and transport.get(f"/v1/jobs/{job_id}", Job).state in TERMINAL_STATES:
                yield from history(transport, job_id, after)
                return
            away_since = None
        except _NoStream:
            fruitless = FRUITLESS_STREAMS
        except ServiceUnavailable:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_SECONDS:
                raise
        if streaming and connected:
            fruitless = 0 if came else fruitless + 1
        yield None
        if not came:
            time.sleep(RETRY_SECONDS)


class _NoStream(Exception):
    """The answer is no event stream."""


def _is_last(event: Event) -> bool:
    return isinstance(event.body, StateBody) and event.body.state in TERMINAL_STATES


def history(transport: Transport, job_id: str, after: int = 0) -> Iterator[Event]:
    """The events that there are, page by page."""
    while events := list(_poll(transport, job_id, after)):
        yield from events
        after = events[-1].seq


def _poll(transport: Transport, job_id: str, after: int) -> Iterator[Event]:
    page: Page[Event] = transport.get(
        f"/v1/jobs/{job_id}/events", Page[Event], params={"after": after, "limit": PAGE_EVENTS}
    )
    yield from page.items


def _stream(transport: Transport, job_id: str, after: int) -> Iterator[Event | None]:
    """One connection's worth of server-sent events (HTML standard, 9.2.6); None for a heartbeat."""
    timeout = httpx.Timeout(transport.timeout, read=HEARTBEAT_SECONDS)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    options = {"params": {"after": after}, "headers": headers, "timeout": timeout}
    with transport.stream(f"/v1/jobs/{job_id}/events/stream", **options) as response:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            raise _NoStream
        yield None
        data: list[str] = []
        for line in response.iter_lines():
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield _event("\n".join(data))
                data = []
            elif line.startswith(":"):
                yield None


def _event(data: str) -> Event:
    try:
        return Event.model_validate_json(data)
    except ValueError:
        raise ServiceError(f"the service sent an event that this version does not know: {data[:200]}") from None
