"""`/v1/jobs/{id}/artifacts`."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse

from dianaq.schemas.resources import Artifact
from dianaq_service.artifacts import service
from dianaq_service.web.deps import Owner, ServicesDep

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("")
def list_artifacts(services: ServicesDep, owner: Owner, job_id: str) -> list[Artifact]:
    """The files of the bundle, and the bundle as one zip."""
    return service.listing(services, owner, job_id)


@router.get("/{path:path}", response_class=FileResponse)
def download_artifact(services: ServicesDep, owner: Owner, job_id: str, path: str) -> FileResponse:
    """One file; its ETag is its sha256."""
    artifact, file = service.locate(services, owner, job_id, path)
    return FileResponse(
        file,
        filename=file.name,
        media_type="application/octet-stream",
        headers={
            "ETag": f'"{artifact.sha256}"',
            "X-Content-Type-Options": "nosniff",
            # A bundle has an HTML page and names out of users' files; whatever a browser does with it, nothing of it
            # shall run as the service's own.
            "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
        },
    )
