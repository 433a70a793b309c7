"""The dependencies of the routes, named once."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool

from dianaq.errors import Unauthorised
from dianaq_service.idempotency import HEADER, Once
from dianaq_service.jobs.service import find
from dianaq_service.keys.service import owner_of
from dianaq_service.web.services import Services


async def get_services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_owner(services: ServicesDep, authorization: Annotated[str, Header()] = "") -> str:
    """Whose key the request carries."""
    scheme, _, key = authorization.partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthorised("the header `Authorization: Bearer <key>` is missing", param="Authorization")
    owner = services.known.owner_of(key)
    if owner is None:
        owner = await run_in_threadpool(_look_up, services, key)
        services.known.see(key, owner)
    return owner


def _look_up(services: Services, key: str) -> str:
    with services.database.read() as session:
        owner = owner_of(session, key)
    if owner is None:
        raise Unauthorised("the key in `Authorization: Bearer <key>` is not known", param="Authorization")
    return owner


Owner = Annotated[str, Depends(get_owner)]


def get_own_job(services: ServicesDep, owner: Owner, job_id: str) -> str:
    """The id of one of the owner's jobs; its database session has ended when the route starts."""
    with services.database.read() as session:
        return find(session, owner, job_id).id


OwnJob = Annotated[str, Depends(get_own_job)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        pattern=r"^[!-~]{1,255}$",
        description="any text of your own, once for each thing to be done: sent again, the first answer is given",
    ),
]


async def get_upload_once(
    services: ServicesDep, owner: Owner, request: Request, key: IdempotencyKey = None
) -> AsyncIterator[Once]:
    """An upload under its key, one at a time; the route tells the body, which only it reads."""
    once = _once(services, owner, request, key)
    if key is None:
        yield once
        return
    with services.in_flight.hold(owner, key):
        yield once


# Over when the route is: a client that has its answer and asks again is not told that the first is under way.
UploadOnceDep = Annotated[Once, Depends(get_upload_once, scope="function")]


async def get_once(services: ServicesDep, owner: Owner, request: Request, key: IdempotencyKey = None) -> Once:
    """The request under its key and of its body."""
    return _once(services, owner, request, key).of(hashlib.sha256(await request.body()).hexdigest())


OnceDep = Annotated[Once, Depends(get_once)]


def _once(services: Services, owner: str, request: Request, key: str | None) -> Once:
    target = f"{request.method} {request.url.path}?{request.url.query}"
    return Once(services.database, owner, key, target, request.scope["route"].status_code or 200)


Cursor = Annotated[str | None, Query(max_length=64, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=200)]
UploadName = Annotated[str, Query(min_length=1, max_length=200, description="what to call it")]
