"""The table of a sweep: figures from the jobs' rows, costs from the reports of their bundles."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import select

from dianaq.schemas.report import REPORT
from dianaq.schemas.sweep_table import Costs, SweepRow, SweepTable
from dianaq.schemas.sweeps import SweepSpec
from dianaq_service.database import JobRow
from dianaq_service.sweeps.service import find
from dianaq_service.web.services import Services


def table(services: Services, owner: str, sweep_id: str) -> SweepTable:
    """What the jobs have reached by now.

    Raises:
        NotFound: the owner has no such sweep.
    """
    with services.database.read() as session:
        sweep = find(session, owner, sweep_id)
        jobs = session.scalars(select(JobRow).where(JobRow.sweep_id == sweep_id).order_by(JobRow.id)).all()
    rows = [
        SweepRow.model_validate(
            {
                "job": job.id,
                "state": job.state,
                "point": job.point,
                "figures": job.metrics,
                "costs": costs(services.storage.artifacts(job.id, job.attempt)) if job.state == "succeeded" else None,
                "error": job.error,
            }
        )
        for job in jobs
    ]
    return SweepTable(id=sweep_id, paths=list(SweepSpec.model_validate(sweep.spec).grid), rows=rows)


def costs(bundle: Path) -> Costs | None:
    """The costs in a bundle's report; None where the report has none, or the bundle was removed meanwhile."""
    try:
        # Layers are nine tenths of a report: only what is needed is validated.
        report = json.loads((bundle / REPORT).read_bytes())
    except FileNotFoundError:
        return None
    cost, memory = report.get("cost"), report.get("memory")
    return Costs.model_validate({**memory, **cost}) if cost and memory else None
