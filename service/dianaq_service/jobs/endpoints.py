"""`/v1/jobs`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from dianaq.schemas.events import State
from dianaq.schemas.report import report_schema
from dianaq.schemas.resources import Job, Page
from dianaq.schemas.spec import JobSpec
from dianaq_service.jobs import service
from dianaq_service.web.deps import Cursor, Limit, OnceDep, Owner, ServicesDep

router = APIRouter(tags=["jobs"])


@router.post("/v1/jobs", status_code=201)
async def create_job(services: ServicesDep, owner: Owner, spec: JobSpec, once: OnceDep) -> Job:
    """Submit a job. It is queued once this returns, whatever happens to the broker."""
    parts = await services.parts.inspect(owner, [spec])
    return await services.intake.submit(owner, spec, once, parts)


@router.get("/v1/jobs")
def list_jobs(
    services: ServicesDep,
    owner: Owner,
    cursor: Cursor = None,
    limit: Limit = 50,
    state: Annotated[State | None, Query()] = None,
) -> Page[Job]:
    """Jobs, newest first."""
    return service.listing(services, owner, cursor, limit, state)


@router.get("/v1/jobs/{job_id}")
def get_job(services: ServicesDep, owner: Owner, job_id: str) -> Job:
    """One job."""
    return service.get(services, owner, job_id)


@router.post("/v1/jobs/{job_id}/cancel")
def cancel_job(services: ServicesDep, owner: Owner, job_id: str, once: OnceDep) -> Job:
    """Cancel a job: a queued one at once, a running one as soon as its attempt notices."""
    return service.cancel(services, owner, job_id, once)


@router.delete("/v1/jobs/{job_id}", status_code=204)
def delete_job(services: ServicesDep, owner: Owner, job_id: str) -> None:
    """Remove a job that has ended, with its events, artifacts and logs."""
    service.delete(services, owner, job_id)


@router.get("/v1/schemas/job-spec")
def job_spec_schema() -> dict[str, Any]:
    """JSON Schema of what `POST /v1/jobs` takes."""
    return JobSpec.model_json_schema(by_alias=True)


@router.get("/v1/schemas/report")
def job_report_schema() -> dict[str, Any]:
    """JSON Schema of a bundle's `report.json`."""
    return report_schema()
