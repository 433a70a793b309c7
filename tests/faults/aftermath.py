"""What must hold after every fault, whatever it was.

- Every accepted job ends in exactly one terminal state, and that is its last word.
- No attempt overlaps another in effect: an older one says nothing once a newer one has spoken.
- What a succeeded job left is byte for byte what the undisturbed job left; of the others nothing is published.
- No process and no file is left that nobody wants.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from dianaq import JobHandle
from dianaq.schemas.events import TERMINAL_STATES, Event

from .job import OWNER, Reference
from .stack import Stack
from .watch import PATIENCE_SECONDS, wait_for

KEPT = ("dianaq.sqlite", "workers", "housekeeping.lock")
"""What lies in the data folder whatever the jobs do: the database, with its log, and the workers' signs of life."""

FOLDERS = ("blobs", f"blobs/{OWNER}", "incoming", "work", "snapshots", "artifacts", "logs")

AGE_SECONDS = 2 * 24 * 3600
"""Beyond what the service keeps of files that nobody refers to."""


def check(stack: Stack, jobs: Sequence[JobHandle], reference: Reference) -> None:
    """Wait for the end of the jobs, which must be all that there are, and look at everything."""
    with stack.client() as client:
        assert {job.id for job in client.jobs()} == {job.id for job in jobs}, "jobs were lost, or doubled"
        for handle in jobs:
            job = client.job(handle.id)
            job.wait(progress=False, timeout=PATIENCE_SECONDS, raise_on_failure=False)
            check_history(list(job.events()), job.state)
            check_bundle(job, reference)
    ids = [job.id for job in jobs]
    _settles(lambda: _strangers(stack), "processes that nobody wants")
    _settles(lambda: _litter(stack, ids), "files that nobody wants")


def check_history(events: Sequence[Event], state: str) -> None:
    """One end, at the end; attempts that follow one another."""
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers)), "events are out of order"
    told = [event for event in events if event.body.type == "state"]
    ends = [event.body.state for event in told if event.body.state in TERMINAL_STATES]
    assert ends == [state], f"the job is {state}, its history ends {ends}"
    assert events[-1].body.type == "state", "the job spoke after its end"
    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts), "an older attempt spoke after a newer one"
    started = [event.attempt for event in told if event.body.state == "running"]
    assert started == list(range(1, len(started) + 1)), f"attempts were started as {started}"


def check_bundle(job: JobHandle, reference: Reference) -> None:
    """The undisturbed job's files, or none."""
    if job.state != "succeeded":
        assert job.artifacts() == []
        return
    assert job.job.spec == reference.spec, "another job than the reference"
    assert job.artifacts() == reference.artifacts, _differences(job, reference)
    with tempfile.TemporaryDirectory() as folder:
        # Checks every file against its hash.
        job.download(Path(folder) / "bundle")


def _differences(job: JobHandle, reference: Reference) -> str:
    ours = {artifact.path: artifact.sha256 for artifact in job.artifacts()}
    theirs = {artifact.path: artifact.sha256 for artifact in reference.artifacts}
    return f"differ from the undisturbed: {[p for p in sorted({*ours, *theirs}) if ours.get(p) != theirs.get(p)]}"


def _strangers(stack: Stack) -> list[str]:
    parts = {part.pid for part in stack.parts if part.runs}
    # uvicorn and Celery have threads, not processes: whatever else carries the stack's name is left over.
    return [" ".join(process.cmdline()) for process in stack.processes() if process.pid not in parts]


def _litter(stack: Stack, ids: Sequence[str]) -> list[str]:
    """Whatever lies in the data folder that nobody wants, or that is missing there."""
    root = stack.storage.root
    with stack.client() as client:
        uploads = [*client.models(), *client.datasets()]
        wanted = {stack.storage.blob(OWNER, upload.sha256) for upload in uploads}
        logs = set()
        for job in map(client.job, ids):
            wanted |= {stack.storage.artifacts(job.id, job.job.attempt) / file.path for file in job.artifacts()}
            logs |= {stack.storage.log(job.id, attempt) for attempt in range(1, job.job.attempt + 1)}
    there = set(root.rglob("*"))
    folders = {folder for path in wanted for folder in path.parents} | {root / name for name in FOLDERS}
    strays = [path for path in there - wanted - logs - folders if not path.relative_to(root).parts[0].startswith(KEPT)]
    for path in strays:
        _age(path)
    missing = [f"{path.relative_to(root)} is missing" for path in wanted - there]
    return sorted(missing + [str(path.relative_to(root)) for path in strays])


def _age(path: Path) -> None:
    """Make it look old, as files that nobody refers to are kept for a while."""
    with suppress(FileNotFoundError):
        os.utime(path, (time.time() - AGE_SECONDS,) * 2)


def _settles(look: Callable[[], list[str]], what: str) -> None:
    """Cleaning up comes after the end of a job, and takes a moment."""
    found: list[str] = []

    def clean() -> bool:
        found[:] = look()
        return not found

    try:
        wait_for(clean, what, 30)
    except AssertionError:
        raise AssertionError(f"{what}: {found}") from None
