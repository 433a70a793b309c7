"""PostgreSQL is restarted, or is away for longer than a lease."""

from __future__ import annotations

import time

from databases import ON_POSTGRESQL, Postgres

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .stack import SHORT
from .watch import in_training, running_again, trained, wait_for

AWAY_SECONDS = 2 * SHORT["lease_seconds"]


@ON_POSTGRESQL
def test_restart_of_postgresql(
    make_stack: MakeStack, long: Reference, record: Recorder, postgres_server: Postgres
) -> None:
    stack = make_stack(long)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        postgres_server.stop()
        postgres_server.start()
        before = len(list(job.events()))
        with record.recovery(
            "PostgreSQL is restarted, every connection with it",
            "API, supervisor and child connect again; the attempt goes on",
            "the child's next event",
        ):
            wait_for(lambda: len(list(job.events())) > before, "the job goes on")
        waiting = client.submit_job(long.spec)
        aftermath.check(stack, [job, waiting], long)
        assert job.refresh().attempt == 1


@ON_POSTGRESQL
def test_postgresql_is_away_for_longer_than_a_lease(
    make_stack: MakeStack, long: Reference, record: Recorder, postgres_server: Postgres
) -> None:
    stack = make_stack(long, workers=2)
    with stack.client() as client:
        job = client.submit_job(long.spec)
        in_training(job)
        postgres_server.stop()
        time.sleep(AWAY_SECONDS)
        assert not stack.children(job.id), "an attempt whose lease cannot be renewed ends"
        postgres_server.start()
        with record.recovery(
            f"PostgreSQL is away for {AWAY_SECONDS:g} s",
            "the supervisor cannot renew the lease and ends the attempt; the job goes on with another one",
            "the next attempt works",
        ):
            running_again(job, after=1)
        aftermath.check(stack, [job], long)
        assert trained(job, 2, 1)
