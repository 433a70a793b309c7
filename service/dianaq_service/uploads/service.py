"""Models and datasets: the same life, told apart by a `Kind`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from starlette.requests import ClientDisconnect

from dianaq.errors import Conflict, DianaqError, InvalidDataset, InvalidModel, NotFound
from dianaq.schemas.resources import Dataset, DatasetInfo, Model, ModelInfo, Page, WeightsInfo
from dianaq_service.counters import count
from dianaq_service.database import Database, DatasetRow, JobRow, ModelRow
from dianaq_service.idempotency import Once
from dianaq_service.ids import new_id
from dianaq_service.jobs.states import is_in
from dianaq_service.retention.expiry import uploads_expire
from dianaq_service.storage import Storage
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
        TooLarge, InvalidRequest, InsufficientStorage: see `receive`.
        InvalidModel, InvalidDataset: the file cannot be used.
        Replay, KeyReused: see `Once.check`.
    """
    limit, floor = services.settings.max_upload_bytes, services.settings.min_free_bytes
    async with receive(request, services.storage.incoming, limit, floor) as received:
        await asyncio.to_thread(once.of(received.sha256).check)
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
            count(session, "upload_bytes", kind.name, by=received.size)
            resource = _resources(services, session, kind, [row])[0]
            once.keep(session, resource)
            if not blob.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                received.path.rename(blob)
                placed = True
    except BaseException:
        if placed:
            # Another upload of the content may count on the blob by now.
            drop_blob(services.database, services.storage, owner, received.sha256)
        raise
    return resource


def listing(services: Services, kind: Kind[R], owner: str, cursor: str | None, limit: int) -> Page[R]:
    """The owner's uploads of this kind, newest first."""
    with services.database.read() as session:
        query = select(kind.table).where(kind.table.owner == owner)
        rows, following = newest_first(session, query, kind.table.id, cursor, limit)
        return Page(items=_resources(services, session, kind, rows), next=following)


def get(services: Services, kind: Kind[R], owner: str, upload_id: str) -> R:
    """One upload.

    Raises:
        NotFound: the owner has no such upload.
    """
    with services.database.read() as session:
        return _resources(services, session, kind, [_find(session, kind, owner, upload_id)])[0]


def remove(database: Database, storage: Storage, kind: Kind[R], owner: str, upload_id: str) -> None:
    """Remove an upload, and then its blob when no other upload of the owner has the same content.

    Raises:
        NotFound: the owner has no such upload.
        Conflict: a job that has not ended needs it.
    """
    with database.write() as session:
        row = _find(session, kind, owner, upload_id, lock=True)
        unfinished = is_in("queued", "running", "cancelling")
        job = session.scalar(select(JobRow.id).where(kind.used_by == upload_id, unfinished).limit(1))
        if job is not None:
            raise Conflict(f"{kind.name} {upload_id} is in use by job {job}", param=f"{kind.name}_id")
        session.delete(row)
    drop_blob(database, storage, owner, row.sha256)


def drop_blob(database: Database, storage: Storage, owner: str, sha256: str) -> bool:
    """Remove a blob if no row refers to it. No upload of the same content comes in between."""
    with database.write() as session:
        database.serialise(session, f"blob {owner} {sha256}")
        if _is_referenced(session, owner, sha256):
            return False
        storage.blob(owner, sha256).unlink(missing_ok=True)
        return True


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


def _resources(services: Services, session: Session, kind: Kind[R], rows: Sequence[ModelRow | DatasetRow]) -> list[R]:
    expires = uploads_expire(session, rows, kind.used_by, services.settings.retention_days_uploads)
    return [
        kind.resource.model_validate(row, from_attributes=True).model_copy(update={"expires": expires[row.id]})
        for row in rows
    ]
