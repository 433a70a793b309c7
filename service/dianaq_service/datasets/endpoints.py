"""`/v1/datasets`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from dianaq.schemas.resources import Dataset, Page
from dianaq_service.uploads import service
from dianaq_service.uploads.service import DATASETS
from dianaq_service.web.deps import Cursor, Limit, Owner, ServicesDep, UploadName, UploadOnceDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post("", status_code=201)
async def upload_dataset(
    services: ServicesDep, owner: Owner, name: UploadName, request: Request, once: UploadOnceDep
) -> Dataset:
    """Upload an npz file: its bytes are the request's body, as they are."""
    return await service.upload(services, DATASETS, owner, name, request, once)


@router.get("")
def list_datasets(services: ServicesDep, owner: Owner, cursor: Cursor = None, limit: Limit = 50) -> Page[Dataset]:
    """Datasets, newest first."""
    return service.listing(services, DATASETS, owner, cursor, limit)


@router.get("/{dataset_id}")
def get_dataset(services: ServicesDep, owner: Owner, dataset_id: str) -> Dataset:
    """One dataset."""
    return service.get(services, DATASETS, owner, dataset_id)


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(services: ServicesDep, owner: Owner, dataset_id: str) -> None:
    """Remove a dataset that no unfinished job needs."""
    service.remove(services.database, services.storage, DATASETS, owner, dataset_id)
