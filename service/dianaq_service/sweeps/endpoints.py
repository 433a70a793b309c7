"""`/v1/sweeps`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from dianaq.schemas.resources import Page
from dianaq.schemas.sweep_table import SweepTable
from dianaq.schemas.sweeps import Sweep, SweepSpec, SweepWithJobs
from dianaq_service.sweeps import service
from dianaq_service.sweeps.table import table
from dianaq_service.web.deps import Cursor, Limit, OnceDep, Owner, ServicesDep

router = APIRouter(tags=["sweeps"])


@router.post("/v1/sweeps", status_code=201)
async def create_sweep(services: ServicesDep, owner: Owner, spec: SweepSpec, once: OnceDep) -> SweepWithJobs:
    """Submit a job for every point of a grid: all of them, or none."""
    jobs = await run_in_threadpool(spec.jobs)
    parts = await services.parts.inspect(owner, [job for _, job in jobs])
    return await run_in_threadpool(service.create, services, owner, spec, once, parts)


@router.get("/v1/sweeps")
def list_sweeps(services: ServicesDep, owner: Owner, cursor: Cursor = None, limit: Limit = 50) -> Page[Sweep]:
    """Sweeps, newest first."""
    return service.listing(services, owner, cursor, limit)


@router.get("/v1/sweeps/{sweep_id}")
def get_sweep(services: ServicesDep, owner: Owner, sweep_id: str) -> SweepWithJobs:
    """One sweep and the states of its jobs."""
    return service.get(services, owner, sweep_id)


@router.get("/v1/sweeps/{sweep_id}/table")
def get_sweep_table(services: ServicesDep, owner: Owner, sweep_id: str) -> SweepTable:
    """What the jobs of a sweep have reached by now: a row per job."""
    return table(services, owner, sweep_id)


@router.post("/v1/sweeps/{sweep_id}/cancel")
def cancel_sweep(services: ServicesDep, owner: Owner, sweep_id: str, once: OnceDep) -> SweepWithJobs:
    """Cancel the jobs of a sweep that have not ended."""
    return service.cancel(services, owner, sweep_id, once)


@router.get("/v1/schemas/sweep-spec")
def sweep_spec_schema() -> dict[str, Any]:
    """JSON Schema of what `POST /v1/sweeps` takes."""
    return SweepSpec.model_json_schema(by_alias=True)
