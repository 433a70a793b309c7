"""How long answers take, as this process gave them: by route, method and class of status (`2xx`).

The route is its template (`/v1/jobs/{job_id}`), never the address, so labels are few whatever clients ask for; what no
route takes is `none`. Unlike the other figures these are kept in memory: a write to the database for each request would
be most of its time. Event streams are left out: they last as long as their jobs.
"""

from __future__ import annotations

from time import perf_counter

from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from prometheus_client import CollectorRegistry, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
"""Upper bounds in seconds: of queries, of submissions (to stay below 0.25), and of uploads of gigabytes."""
NO_ROUTE = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others, which clients may make up, are `other`."""


class Latencies:
    """The histogram of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._histogram = Histogram(
            "dianaq_request_seconds",
            "Time to answer a request in full, of this API process.",
            ["route", "method", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        known = method if method in METHODS else "other"
        self._histogram.labels(route, known, f"{status // 100}xx").observe(seconds)


class LatencyMiddleware:
    """Measures from the first byte of a request's head to the last byte of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        # Of an answer that never began, because the client left.
        status = 499

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            route = scope.get("route")
            is_stream = isinstance(route, APIRoute) and route.response_class is EventSourceResponse
            if not is_stream:
                path = route.path if isinstance(route, APIRoute) else NO_ROUTE
                latencies: Latencies = scope["app"].state.services.latencies
                latencies.observe(path, scope["method"], status, perf_counter() - started)
