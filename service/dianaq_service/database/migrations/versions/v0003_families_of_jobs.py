"""Jobs that wait for another one, and sweeps, which are many jobs in one submission."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_sweeps_owner", "sweeps", ["owner"])
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("waits_for", sa.String(), nullable=True))
        jobs.add_column(sa.Column("sweep_id", sa.String(), nullable=True))
        jobs.add_column(sa.Column("point", sa.JSON(none_as_null=True), nullable=True))
        jobs.create_index("ix_jobs_waits_for", ["waits_for"])
        jobs.create_index("ix_jobs_sweep_id", ["sweep_id"])
