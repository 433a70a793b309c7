"""The data folder: where each kind of file lives, and how whole files come into being and go.

blobs/<owner>/<ab>/<sha256>      uploads, by content
incoming/<random>                uploads on their way in
work/<job>-<attempt>/            what an attempt makes before it is complete
snapshots/<job>/<attempt>/       where an attempt's trainings are; the next attempt takes them over
artifacts/<job>/<attempt>/       bundles; published by the job's row, not by being there
logs/<job>-<attempt>.log         everything an attempt printed
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Storage:
    root: Path

    def create(self) -> None:
        """Make the folders."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("blobs", "incoming", "work", "snapshots", "artifacts", "logs"):
            (self.root / name).mkdir(exist_ok=True)

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    def blob(self, owner: str, sha256: str) -> Path:
        return self.root / "blobs" / owner / sha256[:2] / sha256

    def work(self, job_id: str, attempt: int) -> Path:
        return self.root / "work" / f"{job_id}-{attempt}"

    def artifacts(self, job_id: str, attempt: int) -> Path:
        return self.root / "artifacts" / job_id / str(attempt)

    def snapshots(self, job_id: str, attempt: int) -> Path:
        return self.root / "snapshots" / job_id / str(attempt)

    def log(self, job_id: str, attempt: int) -> Path:
        return self.root / "logs" / f"{job_id}-{attempt}.log"

    def discard_attempt(self, job_id: str, attempt: int) -> None:
        """Remove what an attempt made that did not win. Its log stays."""
        self.discard_work(job_id, attempt)
        shutil.rmtree(self.artifacts(job_id, attempt), ignore_errors=True)
        parent = self.artifacts(job_id, attempt).parent
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

    def inherit_snapshots(self, job_id: str, attempt: int) -> Path:
        """The folder of an attempt's snapshots, which holds the newest one of each that former attempts left.

        Their folders go: a former attempt that still runs has lost the job, and finds no place to write to.
        """
        folder = self.snapshots(job_id, attempt)
        folder.mkdir(parents=True, exist_ok=True)
        former = sorted((int(path.name) for path in folder.parent.iterdir()), reverse=True)
        for number in former[former.index(attempt) + 1 :]:
            for path in self.snapshots(job_id, number).glob("*.pt"):
                if not (folder / path.name).exists():
                    with suppress(FileNotFoundError):
                        path.rename(folder / path.name)
            shutil.rmtree(self.snapshots(job_id, number), ignore_errors=True)
        return folder

    def jobs_with_snapshots(self) -> list[str]:
        """Ids of the jobs that any attempt left snapshots of."""
        folder = self.root / "snapshots"
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []

    def discard_snapshots(self, job_id: str) -> None:
        """Remove the snapshots of all attempts of a job that needs them no longer."""
        shutil.rmtree(self.root / "snapshots" / job_id, ignore_errors=True)

    def discard_work(self, job_id: str, attempt: int) -> None:
        """Remove what an attempt made on the way to its bundle."""
        shutil.rmtree(self.work(job_id, attempt), ignore_errors=True)
