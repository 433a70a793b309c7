"""A job may have no model: a network of the zoo with random weights needs no file."""

from __future__ import annotations

from alembic import op

revision = "v0002"
down_revision = "v0001"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("model_id", nullable=True)
