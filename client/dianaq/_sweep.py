"""A submitted sweep in the hands of a program."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import get_args

from dianaq._follow import PATIENCE_SECONDS
from dianaq._job import JobHandle
from dianaq._transport import Transport
from dianaq.errors import JobFailed, ServiceUnavailable
from dianaq.schemas.events import State
from dianaq.schemas.resources import Job
from dianaq.schemas.sweep_table import SweepTable
from dianaq.schemas.sweeps import SweepWithJobs

POLL_SECONDS = 2.0
"""A job takes from seconds to hours; a look costs the service one short query."""


class SweepHandle:
    """A sweep of the service: wait for it, compare its jobs, cancel them. Made by `Client`."""

    def __init__(self, transport: Transport, sweep: SweepWithJobs) -> None:
        self._transport = transport
        self._sweep = sweep

    def __repr__(self) -> str:
        return f"<SweepHandle {self.id}: {counts(self._sweep.states)}>"

    @property
    def id(self) -> str:
        """The sweep's id."""
        return self._sweep.id

    @property
    def sweep(self) -> SweepWithJobs:
        """The sweep as it was when it was last asked for."""
        return self._sweep

    def refresh(self) -> SweepWithJobs:
        """The sweep as it is now."""
        self._sweep = self._transport.get(self._path, SweepWithJobs)
        return self._sweep

    def jobs(self) -> list[JobHandle]:
        """Its jobs, in the order of the grid's points; `job.job.point` is the point."""
        return [
            JobHandle(self._transport, self._transport.get(f"/v1/jobs/{entry.id}", Job)) for entry in self._sweep.jobs
        ]

    def wait(self, progress: bool = True, timeout: float | None = None, raise_on_failure: bool = True) -> SweepWithJobs:
        """Wait until every job has ended. A restarted service does not end the wait.

        Args:
            progress: print the number of jobs by state whenever it changes.
            timeout: seconds after which to stop waiting; the jobs go on.
            raise_on_failure: whether jobs that failed or were cancelled are an error or a return value. The others
                run to their end in either case, and the table has them.

        Raises:
            JobFailed: says how many did not succeed.
            TimeoutError: the time is over.
            ServiceUnavailable: the service stayed away.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        shown = ""
        while True:
            sweep = self._refresh_patiently()
            before, shown = shown, counts(sweep.states)
            if progress and shown != before:
                print(f"  {shown}", flush=True)
            if sweep.ended:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"sweep {self.id} has not ended after {timeout:g} s: {shown}; its jobs go on")
            time.sleep(POLL_SECONDS)
        if raise_on_failure and any(state != "succeeded" for state in sweep.states):
            raise JobFailed(
                f"sweep {self.id} has jobs that did not succeed: {counts(sweep.states)}; its table says why"
            )
        return sweep

    def table(self) -> SweepTable:
        """What the jobs have reached by now: `rows`, and as text `markdown()` and `csv()`."""
        return self._transport.get(f"{self._path}/table", SweepTable)

    def cancel(self) -> SweepWithJobs:
        """Cancel the jobs that have not ended."""
        self._sweep = self._transport.post(f"{self._path}/cancel", SweepWithJobs)
        return self._sweep

    def _refresh_patiently(self) -> SweepWithJobs:
        away_since: float | None = None
        while True:
            try:
                return self.refresh()
            except ServiceUnavailable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE_SECONDS:
                    raise
            time.sleep(POLL_SECONDS)

    @property
    def _path(self) -> str:
        return f"/v1/sweeps/{self.id}"


def counts(states: Mapping[State, int]) -> str:
    """`6 jobs: 3 queued, 1 running, 2 succeeded`."""
    parts = ", ".join(f"{states[state]} {state}" for state in get_args(State) if states.get(state))
    total = sum(states.values())
    return f"{total} {'job' if total == 1 else 'jobs'}: {parts}"
