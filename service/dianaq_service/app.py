"""The application: its objects, its routes, and how it starts and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event

from fastapi import FastAPI

import dianaq
from dianaq.errors import Problem
from dianaq_service.artifacts.endpoints import router as artifacts
from dianaq_service.database import Database
from dianaq_service.datasets.endpoints import router as datasets
from dianaq_service.events.endpoints import router as events
from dianaq_service.events.follow import Feed
from dianaq_service.jobs.endpoints import router as jobs
from dianaq_service.jobs.intake import Intake
from dianaq_service.keys.service import configure
from dianaq_service.models.endpoints import router as models
from dianaq_service.outbox import Outbox
from dianaq_service.queue import JobQueue
from dianaq_service.retention.housekeeper import Housekeeper
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_service.sweeps.endpoints import router as sweeps
from dianaq_service.uploads.inspect import Inspector
from dianaq_service.uploads.parts import Parts
from dianaq_service.web import errors
from dianaq_service.web.health import router as health
from dianaq_service.web.latency import LatencyMiddleware
from dianaq_service.web.metrics import router as metrics
from dianaq_service.web.ready import router as ready
from dianaq_service.web.requests import RequestContext
from dianaq_service.web.services import Services


def create_app(settings: Settings) -> FastAPI:
    """The API over the database, broker and data folder that the settings name.

    Raises:
        InvalidSpec: the settings would serve other machines without a key.
    """
    settings.check_exposure()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = start(settings)
        app.state.services = services
        services.outbox.start()
        housekeeper = Housekeeper(settings, services.database, services.storage)
        housekeeper.start()
        yield
        await asyncio.to_thread(housekeeper.stop)
        services.stopping.set()
        await asyncio.to_thread(services.intake.close)
        services.outbox.close()
        services.database.close()

    app = FastAPI(
        title="dianaq",
        version=dianaq.__version__,
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        # The interactive pages would load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": Problem, "description": "Problem details (RFC 9457)"}},
    )
    app.add_middleware(RequestContext)
    # The last one is outermost: it sees what the others answer.
    app.add_middleware(LatencyMiddleware)
    errors.install(app)
    # A request goes past each until one takes it: those that are asked most come first.
    for router in (jobs, events, artifacts, models, datasets, sweeps, health, ready, metrics):
        app.include_router(router)
    return app


def start(settings: Settings) -> Services:
    """Folders, tables, the configured key, and the objects that routes use."""
    storage = Storage(settings.data_dir)
    storage.create()
    database = Database(settings.database)
    database.create_tables()
    configure(database, settings.owner, settings.api_key)
    stopping = Event()
    queue = JobQueue(settings.broker_url, database)
    outbox = Outbox(queue)
    inspector = Inspector(settings)
    return Services(
        settings=settings,
        database=database,
        storage=storage,
        queue=queue,
        outbox=outbox,
        intake=Intake(database, outbox),
        inspector=inspector,
        parts=Parts(database, storage, inspector),
        feed=Feed(database, stopping.is_set),
        stopping=stopping,
    )
