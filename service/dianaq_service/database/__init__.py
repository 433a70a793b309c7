"""The rows (`tables`) and how they are reached (`engine`). The database is the truth about every job."""

from dianaq_service.database.engine import Database, Upsert
from dianaq_service.database.tables import (
    AnswerRow,
    ApiKeyRow,
    ArtifactRow,
    CounterRow,
    DatasetRow,
    EventRow,
    JobRow,
    ModelRow,
    SweepRow,
)

__all__ = [
    "AnswerRow",
    "ApiKeyRow",
    "ArtifactRow",
    "CounterRow",
    "Database",
    "DatasetRow",
    "EventRow",
    "JobRow",
    "ModelRow",
    "SweepRow",
    "Upsert",
]
