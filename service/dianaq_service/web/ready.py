"""`/readyz`: whether the API can do its work, which takes database, broker and store. No key needed.

`/v1/health` says that the process lives; restarting it does not bring back a database. This one tells a load balancer
or an operator what is away. A check that hangs, as one of a network file system may, counts as failed and is not begun
a second time before it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from fastapi import APIRouter
from sqlalchemy import select

from dianaq.errors import ServiceUnavailable
from dianaq_service.web.deps import ServicesDep
from dianaq_service.web.services import Services

router = APIRouter(tags=["health"])

CHECK_SECONDS = 3.0
"""Each check answers in milliseconds; sending to a broker that is away gives up after two seconds."""

_log = logging.getLogger(__name__)


@router.get("/readyz")
async def ready(services: ServicesDep) -> dict[str, str]:
    """`ok` for each part, or 503 naming those that are away."""
    checks = {"database": _database, "broker": _broker, "store": _store}
    answers = await asyncio.gather(*(_passes(services, name, check) for name, check in checks.items()))
    away = [name for name, passed in zip(checks, answers, strict=True) if not passed]
    if away:
        raise ServiceUnavailable(f"not ready: the {' and the '.join(away)} cannot be used", param=away[0])
    return dict.fromkeys(checks, "ok")


async def _passes(services: Services, name: str, check: Callable[[Services], object]) -> bool:
    running = services.checks.get(name)
    if running is None or running.done():
        running = services.checks[name] = asyncio.ensure_future(asyncio.to_thread(check, services))
    done, _ = await asyncio.wait({running}, timeout=CHECK_SECONDS)
    if not done:
        _log.warning("not ready: the %s did not answer within %g s", name, CHECK_SECONDS)
        return False
    if (error := running.exception()) is not None:
        _log.warning("not ready: the %s cannot be used: %s", name, error)
    return error is None


def _database(services: Services) -> None:
    with services.database.read() as session:
        session.execute(select(1))


def _broker(services: Services) -> None:
    services.queue.waiting()


def _store(services: Services) -> None:
    path = services.storage.incoming / f"ready-{secrets.token_hex(8)}"
    try:
        path.write_bytes(b"ready")
    finally:
        path.unlink(missing_ok=True)
