"""Where a job may run, how soon, how long it has, and whose turn it is. Jobs that are there keep the defaults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("device", sa.String(), server_default="any", nullable=False))
        jobs.add_column(sa.Column("priority", sa.Integer(), server_default="1", nullable=False))
        jobs.add_column(sa.Column("ran_seconds", sa.Double(), server_default="0", nullable=False))
        jobs.create_index("jobs_by_start", ["owner", "started"])
