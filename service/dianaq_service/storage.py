"""The data folder: where each kind of file lives, and how whole files come into being and go.

blobs/<owner>/<ab>/<sha256>      uploads, by content
incoming/<random>                uploads on their way in
work/<job>-<attempt>/            what an attempt makes before it is complete
artifacts/<job>/<attempt>/       bundles; published by the job's row, not by being there
logs/<job>-<attempt>.log         everything an attempt printed
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STALE_SECONDS = 24 * 3600
"""An upload that has not grown for a day has lost its process."""


@dataclass(frozen=True)
class Storage:
    root: Path

    def create(self) -> None:
        """Make the folders, and remove what crashed uploads left."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("blobs", "incoming", "work", "artifacts", "logs"):
            (self.root / name).mkdir(exist_ok=True)
        for path in self.incoming.iterdir():
            # Uploads of other processes come and go meanwhile.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - STALE_SECONDS:
                    path.unlink()

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    def blob(self, owner: str, sha256: str) -> Path:
        return self.root / "blobs" / owner / sha256[:2] / sha256

    def work(self, job_id: str, attempt: int) -> Path:
        return self.root / "work" / f"{job_id}-{attempt}"

    def artifacts(self, job_id: str, attempt: int) -> Path:
        return self.root / "artifacts" / job_id / str(attempt)

    def log(self, job_id: str, attempt: int) -> Path:
        return self.root / "logs" / f"{job_id}-{attempt}.log"

    def discard_attempt(self, job_id: str, attempt: int) -> None:
        """Remove what an attempt made that did not win. Its log stays."""
        self.discard_work(job_id, attempt)
        shutil.rmtree(self.artifacts(job_id, attempt), ignore_errors=True)
        parent = self.artifacts(job_id, attempt).parent
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

    def discard_work(self, job_id: str, attempt: int) -> None:
        """Remove what an attempt made on the way to its bundle."""
        shutil.rmtree(self.work(job_id, attempt), ignore_errors=True)
