"""Sweeps, jobs that wait for others, idempotency keys, counters, thinned histories and expiry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"


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
    with op.batch_alter_table("answers") as batch:
        batch.create_index("answers_by_age", ["owner", "created"])

    op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", "bucket"),
    )
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("sweeps") as batch:
        batch.create_index("ix_sweeps_owner", ["owner"])

    with op.batch_alter_table("events") as batch:
        batch.add_column(sa.Column("thinned", sa.String(), nullable=True))
        batch.add_column(sa.Column("label", sa.String(), nullable=True))
        batch.create_index(
            "events_thinned",
            ["job_id", "thinned", "seq"],
            sqlite_where=sa.text("thinned IS NOT NULL"),
            postgresql_where=sa.text("thinned IS NOT NULL"),
        )

    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("logs", sa.Integer(), server_default="0", nullable=False))
        batch.add_column(sa.Column("expired", sa.DateTime(), nullable=True))
        batch.add_column(sa.Column("waits_for", sa.String(), nullable=True))
        batch.add_column(sa.Column("sweep_id", sa.String(), nullable=True))
        batch.add_column(sa.Column("point", sa.JSON(none_as_null=True), nullable=True))
        batch.create_index("ix_jobs_sweep_id", ["sweep_id"])
        batch.create_index("ix_jobs_waits_for", ["waits_for"])
