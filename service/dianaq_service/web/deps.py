"""The dependencies of the routes, named once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query, Request

from dianaq.errors import Unauthorised
from dianaq_service.jobs.service import find
from dianaq_service.keys.service import owner_of
from dianaq_service.web.services import Services


def get_services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


def get_owner(services: ServicesDep, authorization: Annotated[str, Header()] = "") -> str:
    """Whose key the request carries."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorised("the header `Authorization: Bearer <key>` is missing", param="Authorization")
    with services.database.read() as session:
        owner = owner_of(session, key.strip())
    if owner is None:
        raise Unauthorised("the key in `Authorization: Bearer <key>` is not known", param="Authorization")
    return owner


Owner = Annotated[str, Depends(get_owner)]


def get_own_job(services: ServicesDep, owner: Owner, job_id: str) -> str:
    """The id of one of the owner's jobs; its database session has ended when the route starts."""
    with services.database.read() as session:
        return find(session, owner, job_id).id


OwnJob = Annotated[str, Depends(get_own_job)]

Cursor = Annotated[str | None, Query(max_length=64, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=200)]
UploadName = Annotated[str, Query(min_length=1, max_length=200, description="what to call it")]
