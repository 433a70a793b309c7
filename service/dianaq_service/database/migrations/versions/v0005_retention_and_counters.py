"""When a job's artifacts were removed, and what is counted for the metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0005"
down_revision = "v0004"


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", "bucket"),
    )
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("expired", sa.DateTime(), nullable=True))
