"""What POSTs under an idempotency key were answered, and what thins a job's events. Older events stay as they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key"),
    )
    op.create_index("answers_by_age", "answers", ["owner", "created"])
    with op.batch_alter_table("events") as events:
        events.add_column(sa.Column("thinned", sa.String(), nullable=True))
        events.add_column(sa.Column("label", sa.String(), nullable=True))
    thinned = sa.text("thinned IS NOT NULL")
    op.create_index(
        "events_thinned", "events", ["job_id", "thinned", "seq"], sqlite_where=thinned, postgresql_where=thinned
    )
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("logs", sa.Integer(), server_default="0", nullable=False))
