"""`/v1/models`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from dianaq.schemas.resources import Model, Page
from dianaq_service.uploads import service
from dianaq_service.uploads.service import MODELS
from dianaq_service.web.deps import Cursor, Limit, Owner, ServicesDep, UploadName, UploadOnceDep

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post("", status_code=201)
async def upload_model(
    services: ServicesDep, owner: Owner, name: UploadName, request: Request, once: UploadOnceDep
) -> Model:
    """Upload a network (ONNX), or weights (safetensors, or a PyTorch state dict): the body is the file as it is."""
    return await service.upload(services, MODELS, owner, name, request, once)


@router.get("")
def list_models(services: ServicesDep, owner: Owner, cursor: Cursor = None, limit: Limit = 50) -> Page[Model]:
    """Models, newest first."""
    return service.listing(services, MODELS, owner, cursor, limit)


@router.get("/{model_id}")
def get_model(services: ServicesDep, owner: Owner, model_id: str) -> Model:
    """One model."""
    return service.get(services, MODELS, owner, model_id)


@router.delete("/{model_id}", status_code=204)
def delete_model(services: ServicesDep, owner: Owner, model_id: str) -> None:
    """Remove a model that no unfinished job needs."""
    service.remove(services.database, services.storage, MODELS, owner, model_id)
