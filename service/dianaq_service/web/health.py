"""`/v1/health`: whether the API and its database answer. No key needed."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

import dianaq
from dianaq.errors import ServiceUnavailable
from dianaq.schemas.resources import Health
from dianaq_service.web.deps import ServicesDep

router = APIRouter(tags=["health"])


@router.get("/v1/health")
def health(services: ServicesDep) -> Health:
    """`ok`, or 503."""
    try:
        with services.database.read() as session:
            session.execute(select(1))
    except SQLAlchemyError as error:
        raise ServiceUnavailable("the database does not answer") from error
    return Health(status="ok", version=dianaq.__version__)
