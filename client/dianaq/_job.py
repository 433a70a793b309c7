"""A submitted job in the hands of a program."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dianaq import _bundle, _follow
from dianaq._display import Display
from dianaq._transport import Transport
from dianaq.errors import Conflict, JobCancelled, JobFailed, ServiceError
from dianaq.schemas.events import TERMINAL_STATES, Event, State
from dianaq.schemas.resources import Artifact, Job

if TYPE_CHECKING:
    from dianaq.schemas.report import JobReport


class JobHandle:
    """A job of the service: watch it, cancel it, fetch what it made. Made by `Client`."""

    def __init__(self, transport: Transport, job: Job) -> None:
        self._transport = transport
        self._job = job

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}: {self._job.state}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self._job.id

    @property
    def job(self) -> Job:
        """The job as it was when it was last asked for."""
        return self._job

    @property
    def state(self) -> State:
        """The job's state, asked for now unless it has ended."""
        return self._job.state if self._job.state in TERMINAL_STATES else self.refresh().state

    def refresh(self) -> Job:
        """The job as it is now."""
        self._job = self._transport.get(self._path, Job)
        return self._job

    def wait(self, progress: bool = True, timeout: float | None = None, raise_on_failure: bool = True) -> Job:
        """Wait until the job has ended. Dropped connections and a restarted service do not end the wait.

        Args:
            progress: show bars and lines in a terminal or notebook, lines elsewhere.
            timeout: seconds after which to stop waiting; the job goes on.
            raise_on_failure: whether a failed or cancelled job is an error or a return value.

        Raises:
            JobFailed: with the cause's words; `cause` is the whole problem.
            JobCancelled: somebody cancelled it.
            TimeoutError: the time is over.
            ServiceUnavailable: the service stayed away.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        display = Display() if progress else None
        try:
            for event in _follow.follow(self._transport, self.id, deadline=deadline):
                if event is not None and display is not None:
                    display.show(event)
                if deadline is not None and time.monotonic() > deadline and self.state not in TERMINAL_STATES:
                    raise TimeoutError(f"job {self.id} is still {self._job.state} after {timeout:g} s; it goes on")
        finally:
            if display is not None:
                display.close()
        job = self.refresh()
        if raise_on_failure:
            _raise_unless_succeeded(job)
        return job

    def events(self, after: int = 0, follow: bool = False) -> Iterator[Event]:
        """The job's events after number `after`: those there are, or all until the job has ended."""
        if not follow:
            yield from _follow.history(self._transport, self.id, after)
            return
        for event in _follow.follow(self._transport, self.id, after):
            if event is not None:
                yield event

    def cancel(self) -> Job:
        """Ask the service to cancel the job; the job as it is then (`cancelling`, or `cancelled`).

        Raises:
            Conflict: the job has already succeeded or failed.
        """
        self._job = self._transport.post(f"{self._path}/cancel", Job)
        return self._job

    def delete(self) -> None:
        """Have the service remove the job with its events, artifacts and logs. It must have ended.

        Raises:
            Conflict: it has not ended, or a job that has not ended starts from it; the message names that one.
        """
        self._transport.delete(self._path)

    def artifacts(self) -> list[Artifact]:
        """The files that the job left; none before it has succeeded."""
        return self._transport.get(f"{self._path}/artifacts", list[Artifact])

    def download(self, out_dir: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Fetch the bundle and check every file of it. The folder appears complete or not at all.

        Args:
            out_dir: a folder that does not exist, is empty, or holds an older bundle and nothing else.
            overwrite: replace the folder whatever it holds.

        Returns:
            The folder, with `bundle.zip` beside what was in it.

        Raises:
            FileExistsError: the folder holds other things.
            Conflict: the job has no bundle.
            ServiceError: what arrived is not what the service listed.
        """
        folder = Path(out_dir)
        _bundle.check_replaceable(folder.expanduser().resolve(), overwrite=overwrite)
        archive = self._artifact(_bundle.ARCHIVE)
        with _bundle.complete_or_absent(folder, overwrite=overwrite) as fresh:
            self._fetch(archive, fresh / _bundle.ARCHIVE)
            _bundle.unpack(fresh / _bundle.ARCHIVE, fresh)
        return folder

    def report(self) -> JobReport:
        """What the job measured and did: its `report.json`, typed.

        Raises:
            Conflict: the job has no bundle.
            ServiceError: what arrived is not what the service listed, or a report that this version does not read.
        """
        from dianaq.schemas.report import REPORT, read_report  # a tenth of what importing the SDK takes

        artifact = self._artifact(REPORT)
        with tempfile.TemporaryDirectory() as folder:
            self._fetch(artifact, Path(folder) / REPORT)
            return read_report(folder)

    def _artifact(self, path: str) -> Artifact:
        found = next((a for a in self.artifacts() if a.path == path), None)
        if found is None:
            raise Conflict(f"job {self.id} is {self.refresh().state} and has no bundle; only succeeded jobs have one")
        return found

    @property
    def _path(self) -> str:
        return f"/v1/jobs/{self.id}"

    def _fetch(self, artifact: Artifact, target: Path) -> None:
        digest = hashlib.sha256()
        size = 0
        with self._transport.stream(f"{self._path}/artifacts/{artifact.path}") as response, target.open("xb") as file:
            for chunk in response.iter_bytes():
                size += len(chunk)
                if size > artifact.size:
                    break
                digest.update(chunk)
                file.write(chunk)
        if size != artifact.size or digest.hexdigest() != artifact.sha256:
            raise ServiceError(
                f"{artifact.path} arrived damaged: {size:,} bytes with sha256 {digest.hexdigest()}, listed were "
                f"{artifact.size:,} with {artifact.sha256}"
            )


def _raise_unless_succeeded(job: Job) -> None:
    if job.state == "cancelled":
        raise JobCancelled(f"job {job.id} was cancelled")
    if job.state == "failed":
        why = f"{job.error.title}: {job.error.detail}" if job.error else "without a reason"
        raise JobFailed(f"job {job.id} failed: {why}", cause=job.error, param=job.error.param if job.error else None)
