"""The objects behind the routes, made once per application."""

from __future__ import annotations

from asyncio import Future
from dataclasses import dataclass, field
from threading import Event

from dianaq_service.database import Database
from dianaq_service.events.follow import Feed
from dianaq_service.idempotency import InFlight
from dianaq_service.jobs.intake import Intake
from dianaq_service.keys.service import Known
from dianaq_service.outbox import Outbox
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_service.uploads.inspect import Inspector
from dianaq_service.uploads.parts import Parts
from dianaq_service.web.latency import Latencies


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    storage: Storage
    queue: JobQueue
    outbox: Outbox
    intake: Intake
    inspector: Inspector
    parts: Parts
    feed: Feed
    checks: dict[str, Future[object]] = field(default_factory=dict)
    """The last check of each part, which may still run (`dianaq_service.web.ready`)."""
    stopping: Event = field(default_factory=Event)
    """Set when the server is asked to stop, so that streams end by themselves."""
    latencies: Latencies = field(default_factory=Latencies)
    in_flight: InFlight = field(default_factory=InFlight)
    known: Known = field(default_factory=Known)
