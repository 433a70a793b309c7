"""`make bench-followers`: what 200 clients that follow events cost the API, and how long an event takes to them.

A job trains on the same machine meanwhile. Another process writes the events of `JOBS` jobs, as workers do: progress
of a few labels each. This one follows, over `FOLLOWERS` real connections. An event's lag is from the time in its row
to its arrival here; the machine has one clock. Memory is the API's resident set before the first follower came,
while all follow, and after the last one has gone.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import quantiles

import httpx
import psutil
from load import start_training
from results import record, table

from dianaq import Client
from dianaq.schemas.events import ProgressBody
from dianaq_service.database import Database, JobRow
from dianaq_service.events.repository import append
from dianaq_service.ids import new_id
from dianaq_service.jobs.states import move
from dianaq_service.settings import Settings
from dianaq_worker.embedded import LocalStack

FOLLOWERS = 200
JOBS = 20
EVENTS_PER_SECOND = 2.0
"""Of each job: as many as a worker lets through of one label."""
SECONDS = 30.0
LEASE_SECONDS = 3600.0
"""No worker has the jobs that are followed, and nobody is to take them for lost."""
MIB = 2**20


def make_jobs(database: Database, owner: str) -> list[str]:
    jobs = [new_id("job") for _ in range(JOBS)]
    with database.write() as session:
        for job in jobs:
            session.add(JobRow(id=job, owner=owner, dataset_id="dat_none", spec={}, state="queued"))
            session.flush()
            move(session, job, "running", attempt=1)
    return jobs


def write_events(settings: Settings, jobs: list[str], seconds: float) -> None:
    """In turn, evenly over the time; then the end of each job."""
    database = Database(settings.database)
    pause, start = 1 / (EVENTS_PER_SECOND * len(jobs)), time.monotonic()
    for number in range(int(seconds / pause)):
        time.sleep(max(0.0, start + number * pause - time.monotonic()))
        step = number // len(jobs)
        body = ProgressBody(stage="float", label=f"epoch {step // 10}", step=step % 10, total=10)
        with database.write() as session:
            append(session, jobs[number % len(jobs)], body)
    for job in jobs:
        with database.write() as session:
            move(session, job, "succeeded")
    database.close()


async def follow(client: httpx.AsyncClient, job: str, lags: list[float], ready: asyncio.Semaphore) -> None:
    """Lags of the events that came while following, not of those replayed."""
    async with client.stream("GET", f"/v1/jobs/{job}/events/stream") as response:
        response.raise_for_status()
        came = 0
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                came += 1
                if came == 1:  # `running`, which was there before
                    ready.release()
                else:
                    lags.append(time.time() - datetime.fromisoformat(json.loads(line[5:])["time"]).timestamp())


async def measure(url: str, settings: Settings, jobs: list[str], api: psutil.Process) -> tuple[list[float], list[int]]:
    lags: list[float] = []
    memory = [api.memory_info().rss]
    ready = asyncio.Semaphore(0)
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {settings.api_key}"}
    client = httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False)
    async with client, asyncio.TaskGroup() as tasks:
        for number in range(FOLLOWERS):
            tasks.create_task(follow(client, jobs[number % JOBS], lags, ready))
        for _ in range(FOLLOWERS):
            await ready.acquire()
        writer = multiprocessing.get_context("spawn").Process(target=write_events, args=(settings, jobs, SECONDS))
        writer.start()
        await asyncio.sleep(SECONDS / 2)
        memory.append(api.memory_info().rss)
        await asyncio.to_thread(writer.join)
    await asyncio.sleep(2)
    memory.append(api.memory_info().rss)
    return lags, memory


def main() -> int:
    """Measure, print and record."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalStack(Path(folder) / "stack", settings={"lease_seconds": LEASE_SECONDS}) as stack,
        Client(stack.url, stack.key) as client,
    ):
        training = start_training(client, Path(folder))
        settings = Settings(data_dir=stack.data_dir, broker_url="", api_key=stack.key)
        database = Database(settings.database)
        jobs = make_jobs(database, settings.owner)
        lags, memory = asyncio.run(measure(stack.url, settings, jobs, psutil.Process(stack.pids["api"])))
        database.close()
        assert training.state == "running", f"the job that was to train meanwhile is {training.state}"
        training.cancel()
    centiles = quantiles(lags, n=100)
    before, during, after = (size / MIB for size in memory)
    rows = [
        ["median lag", f"{centiles[49] * 1000:.0f} ms", ""],
        ["99th percentile of the lag", f"{centiles[98] * 1000:.0f} ms", "1000 ms"],
        ["longest lag", f"{max(lags) * 1000:.0f} ms", ""],
        ["memory of the API before anybody follows", f"{before:.0f} MiB", ""],
        ["while all follow", f"{during:.0f} MiB", ""],
        ["after the last one has left", f"{after:.0f} MiB", "200 MB"],
    ]
    text = table(["what", "measured", "limit"], rows)
    print(text)
    note = (
        f"{FOLLOWERS} clients follow {JOBS} jobs with {EVENTS_PER_SECOND:g} events a second each while another job "
        f"trains; {len(lags)} events."
    )
    record("Followers", f"{note}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
