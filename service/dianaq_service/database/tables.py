"""The tables. Rooms read and write them; nobody else should need SQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Index, String, text
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC: stored without an offset, which SQLite has no type for; read with it."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


PRIORITIES = ("low", "normal", "high")
"""By the number that a row has for each."""


def _specified(context: DefaultExecutionContext) -> dict[str, Any]:
    """The specification of the job whose row is being inserted."""
    values: dict[str, Any] = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return dict(values["spec"])


def _device(context: DefaultExecutionContext) -> str:
    return str(_specified(context).get("device", "any"))


def _priority(context: DefaultExecutionContext) -> int:
    return PRIORITIES.index(_specified(context).get("priority", "normal"))


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, str: String}  # noqa: RUF012


class ApiKeyRow(Base):
    __tablename__ = "api_keys"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    configured: Mapped[bool] = mapped_column(default=False)
    """Came from `DIANAQ_API_KEY`, and goes when that changes."""
    created: Mapped[datetime] = mapped_column(default=now)


class UploadRow:
    """The columns that models and datasets share."""

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int]
    created: Mapped[datetime] = mapped_column(default=now)
    info: Mapped[dict[str, Any]]


class ModelRow(UploadRow, Base):
    __tablename__ = "models"


class DatasetRow(UploadRow, Base):
    __tablename__ = "datasets"


class JobRow(Base):
    """A job. `attempt` counts its starts and fences what they write; `losses` counts those that just died."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    model_id: Mapped[str | None] = mapped_column(index=True)
    """Of the network or the weights; none for a zoo network with random weights."""
    dataset_id: Mapped[str] = mapped_column(index=True)
    spec: Mapped[dict[str, Any]]
    state: Mapped[str]
    stage: Mapped[str | None]
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created: Mapped[datetime] = mapped_column(default=now)
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]

    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_expires: Mapped[datetime | None]
    cancel_requested: Mapped[datetime | None]
    sent: Mapped[datetime | None]
    """When its id last went to the broker."""
    last_seq: Mapped[int] = mapped_column(default=0)
    """Number of the newest event."""
    logs: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many log events it has had."""
    expired: Mapped[datetime | None]
    """When its artifacts were removed."""
    waits_for: Mapped[str | None] = mapped_column(index=True)
    """The job that it starts from and that has not ended yet; nobody may claim it before."""
    sweep_id: Mapped[str | None] = mapped_column(index=True)
    point: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the sweep's grid set in `spec`, by path."""

    device: Mapped[str] = mapped_column(default=_device, server_default="any")
    priority: Mapped[int] = mapped_column(default=_priority, server_default="1")
    """Both as the specification says; workers choose by them."""
    ran_seconds: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """How long its attempts have run together, as their supervisors measured it. It counts for the deadline."""

    __table_args__ = (
        Index("jobs_by_state", "state", "lease_expires"),
        # When an owner was last served.
        Index("jobs_by_start", "owner", "started"),
    )


class CounterRow(Base):
    """A count that only grows (`dianaq_service.counters`). Histograms have a row per bucket, and the sum."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    bucket: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class SweepRow(Base):
    """A submission of many jobs; their rows name it, and their ids sort as the points of its grid do."""

    __tablename__ = "sweeps"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    spec: Mapped[dict[str, Any]]
    created: Mapped[datetime] = mapped_column(default=now)


class EventRow(Base):
    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(default=now)
    attempt: Mapped[int]
    body: Mapped[dict[str, Any]]
    thinned: Mapped[str | None]
    """As what newer ones may remove it, `progress` or `log`; most events stay for ever."""
    label: Mapped[str | None]
    """Of progress events, what the next one of it supersedes."""

    __table_args__ = (
        Index(
            "events_thinned",
            "job_id",
            "thinned",
            "seq",
            sqlite_where=text("thinned IS NOT NULL"),
            postgresql_where=text("thinned IS NOT NULL"),
        ),
    )


class AnswerRow(Base):
    """What a POST with an idempotency key was answered: see `dianaq_service.idempotency`."""

    __tablename__ = "answers"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    """sha256 of what was asked."""
    status: Mapped[int]
    body: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=now)

    __table_args__ = (Index("answers_by_age", "created"),)


class ArtifactRow(Base):
    """A file of a succeeded job, relative to the folder of the attempt that succeeded."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]
    sha256: Mapped[str]
