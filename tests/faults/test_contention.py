"""Two supervisors want the same thousand jobs."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import pytest

from dianaq_service.database import Database
from dianaq_worker import leases
from dianaq_worker.child.recorder import Recorder as Attempt

from .aftermath import check_history
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .watch import PATIENCE_SECONDS, states

JOBS, CLIENTS, SUPERVISORS = 1_000, 10, 2


_together: list[Barrier] = []
"""Where this process waits for the other supervisors."""


def meet_at(barrier: Barrier) -> None:
    _together.append(barrier)


def take_all(url: str, owner: str, ids: list[str]) -> list[str]:
    """Claim every job that is to be had, and end it well; what a supervisor and its child do, without the work."""
    database = Database(url)
    won = []
    _together[0].wait(PATIENCE_SECONDS)
    for id in ids:
        attempt = leases.claim(database, id, owner, 30)
        if attempt is not None:
            won.append(id)
            assert Attempt(database, id, attempt).succeed([])
    database.close()
    return won


@pytest.mark.slow
def test_each_of_a_thousand_jobs_is_claimed_once(make_stack: MakeStack, short: Reference, record: Recorder) -> None:
    stack = make_stack(short, workers=0)

    def submit(count: int) -> list[str]:
        with stack.client() as client:
            return [client.submit_job(short.spec).id for _ in range(count)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        ids = [id for made in pool.map(submit, [JOBS // CLIENTS] * CLIENTS) for id in made]
    url = stack.settings.database
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(SUPERVISORS, context, meet_at, (context.Barrier(SUPERVISORS),)) as pool,
        record.recovery(
            f"{SUPERVISORS} supervisors claim the same {JOBS:,} jobs", "each job has one of them", "all have ended"
        ),
    ):
        won = list(pool.map(take_all, [url] * SUPERVISORS, "ab", [ids] * SUPERVISORS))
    assert sorted(won[0] + won[1]) == sorted(ids)
    assert won[0]
    assert won[1]
    with stack.client() as client:
        assert {job.id for job in client.jobs(state="succeeded")} == set(ids)
        for id in ids:
            events = list(client.job(id).events())
            check_history(events, "succeeded")
            assert states(events) == ["queued", "running", "succeeded"]
