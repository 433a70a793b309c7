"""`/metrics`: what Prometheus scrapes, computed from the database, so that it is right with any number of workers,
and this process's own latencies.

It takes a key, like everything that tells what is done here (Prometheus: `authorization: {credentials: KEY}`); it says
nothing about any one owner, and every label has few values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import get_args

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from dianaq.schemas.events import State
from dianaq_service.counters import BEYOND, BUCKETS, SUM
from dianaq_service.database import CounterRow, Database, JobRow
from dianaq_service.database.tables import now
from dianaq_service.web.deps import Owner, ServicesDep

router = APIRouter(tags=["health"])

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


@router.get("/metrics", response_class=Response)
def metrics(services: ServicesDep, _: Owner) -> Response:
    """Figures in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Figures(services.database))
    answers = generate_latest(services.latencies.registry)
    return Response(generate_latest(registry) + answers, media_type=CONTENT_TYPE_LATEST)


class _Figures(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Family]:
        with self._database.read() as session:
            states = {
                row.state: row
                for row in session.execute(
                    select(
                        JobRow.state,
                        func.count().label("jobs"),
                        func.sum(JobRow.losses).label("losses"),
                        func.min(JobRow.created).label("oldest"),
                    ).group_by(JobRow.state)
                )
            }
            rows = session.scalars(select(CounterRow)).all()
        jobs = GaugeMetricFamily("dianaq_jobs", "Jobs that there are, by state.", labels=["state"])
        for state in get_args(State):
            jobs.add_metric([state], states[state].jobs if state in states else 0)
        yield jobs
        waiting = (now() - states["queued"].oldest).total_seconds() if "queued" in states else 0
        yield GaugeMetricFamily("dianaq_queue_age_seconds", "Age of the oldest queued job.", value=waiting)

        counted: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in rows:
            counted[row.name][row.label][row.bucket] = row.value
        moves = CounterMetricFamily("dianaq_job_moves", "Moves of jobs into a state.", labels=["state"])
        for state in get_args(State):
            moves.add_metric([state], counted["moves"][state].get("", 0))
        yield moves
        renewals = counted["lease_renewals"][""].get("", 0)
        yield CounterMetricFamily("dianaq_lease_renewals", "Leases renewed by workers.", value=renewals)
        lost = sum(row.losses for row in states.values())
        yield GaugeMetricFamily(
            "dianaq_attempts_lost", "Attempts of the jobs that there are which just died.", value=lost
        )
        sizes = CounterMetricFamily("dianaq_upload_bytes", "Bytes of uploads that were kept.", labels=["kind"])
        for kind in ("model", "dataset"):
            sizes.add_metric([kind], counted["upload_bytes"][kind].get("", 0))
        yield sizes
        for name, text in (("stage", "Time that a stage took."), ("step", "Time of one step, by stage.")):
            family = HistogramMetricFamily(f"dianaq_{name}_seconds", text, labels=["stage"])
            for stage, found in counted[f"{name}_seconds"].items():
                family.add_metric([stage], _cumulative(found), found.get(SUM, 0))
            yield family


def _cumulative(found: dict[str, float]) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each holds those below it."""
    total, buckets = 0.0, []
    for bound in (*(f"{bound:g}" for bound in BUCKETS), BEYOND):
        total += found.get(bound, 0)
        buckets.append((bound, total))
    return buckets
