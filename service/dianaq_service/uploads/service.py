"""Models and datasets: the same life, told apart by a `Kind`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from starlette.requests import ClientDisconnect

from dianaq.errors import Conflict, DianaqError, InvalidDataset, InvalidModel, NotFound
from dianaq.resources import Dataset, DatasetInfo, Model, ModelInfo, Page, WeightsInfo
from dianaq_service.database import DatasetRow, JobRow, ModelRow
from dianaq_service.idempotency import Once
from dianaq_service.ids import new_id
from dianaq_service.jobs.states import is_in
from dianaq_service.uploads.receive import Received, receive
from dianaq_service.web.pages import newest_first
from dianaq_service.web.services import Services

R = TypeVar("R", Model, Dataset)


@dataclass(frozen=True)
class Kind(Generic[R]):
    """What differs between models and datasets."""

    name: str
    prefix: str
    table: type[ModelRow] | type[DatasetRow]
    resource: type[R]
    info: TypeAdapter[Any]
    """Reads what inspection answers."""
    refusal: type[DianaqError]
    used_by: InstrumentedAttribute[Any]
    """The column of a job that refers to this kind."""


MODELS = Kind("model", "mdl", ModelRow, Model, TypeAdapter(ModelInfo | WeightsInfo), InvalidModel, JobRow.model_id)
DATASETS = Kind("dataset", "dat", DatasetRow, Dataset, TypeAdapter(DatasetInfo), InvalidDataset, JobRow.dataset_id)


async def upload(services: Services, kind: Kind[R], owner: str, name: str, request: Request, once: Once) -> R:
    """Receive a file, have it looked into, and keep it, once. A refused one leaves nothing.

    Raises:
        TooLarge, InvalidRequest: see `receive`.
        InvalidModel, InvalidDataset: the file cannot be used.
        Replay, KeyReused: see `Once.check`.
    """
    limit = services.settings.max_upload_bytes
    async with receive(request, services.storage.incoming, limit) as received:
        await asyncio.to_thread(once.check, received.sha256)
        found = await services.inspector.inspect(kind.name, received.path, kind.refusal)
        info = kind.info.validate_python(found)
        if await request.is_disconnected():
            # Nobody would learn the id.
            raise ClientDisconnect
        return await asyncio.to_thread(_keep, services, kind, owner, name, received, info, once)


def _keep(
    services: Services, kind: Kind[R], owner: str, name: str, received: Received, info: BaseModel, once: Once
) -> R:
    blob = services.storage.blob(owner, received.sha256)
    placed = False
    try:
        with services.database.write() as session:
            services.database.serialise(session, f"blob {owner} {received.sha256}")
            row = kind.table(
                id=new_id(kind.prefix),
                owner=owner,
                name=name,
                sha256=received.sha256,
                size=received.size,
                info=info.model_dump(mode="json"),
            )
            session.add(row)
            session.flush()
            resource = _resource(kind, row)
            once.keep(session, resource)
            if not blob.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                received.path.rename(blob)
                placed = True
    except BaseException:
        if placed:
            blob.unlink(missing_ok=True)
        raise
    return resource


def listing(services: Services, kind: Kind[R], owner: str, cursor: str | None, limit: int) -> Page[R]:
    """The owner's uploads of this kind, newest first."""
    with services.database.read() as session:
        query = select(kind.table).where(kind.table.owner == owner)
        rows, following = newest_first(session, query, kind.table.id, cursor, limit)
    return Page(items=[_resource(kind, row) for row in rows], next=following)


def get(services: Services, kind: Kind[R], owner: str, upload_id: str) -> R:
    """One upload.

    Raises:
        NotFound: the owner has no such upload.
    """
    with services.database.read() as session:
        return _resource(kind, _find(session, kind, owner, upload_id))


def delete(services: Services, kind: Kind[R], owner: str, upload_id: str) -> None:
    """Remove an upload, and its blob when no other upload of the owner has the same content.

    Raises:
        NotFound: the owner has no such upload.
        Conflict: a job that has not ended needs it.
    """
    with services.database.write() as session:
        row = _find(session, kind, owner, upload_id, lock=True)
        unfinished = is_in("queued", "running", "cancelling")
        job = session.scalar(select(JobRow.id).where(kind.used_by == upload_id, unfinished).limit(1))
        if job is not None:
            raise Conflict(f"{kind.name} {upload_id} is in use by job {job}", param=f"{kind.name}_id")
        services.database.serialise(session, f"blob {owner} {row.sha256}")
        session.delete(row)
        session.flush()
        if not _is_referenced(session, owner, row.sha256):
            # Inside the transaction, so that no upload of the same content can come in between. Should the
            # commit fail, the row stays without its blob, and a new upload of the content restores it.
            services.storage.blob(owner, row.sha256).unlink(missing_ok=True)


def _find(session: Session, kind: Kind[R], owner: str, upload_id: str, *, lock: bool = False) -> ModelRow | DatasetRow:
    query = select(kind.table).where(kind.table.id == upload_id, kind.table.owner == owner)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"there is no {kind.name} {upload_id!r}", param=f"{kind.name}_id")
    return cast(ModelRow | DatasetRow, row)


def _is_referenced(session: Session, owner: str, sha256: str) -> bool:
    return any(
        session.scalar(select(func.count()).select_from(table).where(table.owner == owner, table.sha256 == sha256))
        for table in (ModelRow, DatasetRow)
    )


def _resource(kind: Kind[R], row: ModelRow | DatasetRow) -> R:
    return kind.resource.model_validate(row, from_attributes=True)
