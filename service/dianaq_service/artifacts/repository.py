"""Artifacts in the database: a file is one only if its row is there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from dianaq.schemas.resources import Artifact
from dianaq_service.database import ArtifactRow

CHUNK = 1024 * 1024


def scan(folder: Path) -> list[Artifact]:
    """Every file below a folder, with its hash."""
    return [
        Artifact(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=_sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def add(session: Session, job_id: str, artifacts: list[Artifact]) -> None:
    session.add_all(ArtifactRow(job_id=job_id, **artifact.model_dump()) for artifact in artifacts)


def listing(session: Session, job_id: str) -> list[Artifact]:
    rows = session.scalars(select(ArtifactRow).where(ArtifactRow.job_id == job_id).order_by(ArtifactRow.path))
    return [Artifact(path=row.path, size=row.size, sha256=row.sha256) for row in rows]


def find(session: Session, job_id: str, path: str) -> Artifact | None:
    row = session.get(ArtifactRow, (job_id, path))
    return None if row is None else Artifact(path=row.path, size=row.size, sha256=row.sha256)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
