"""Expired answers are removed for all owners at once."""

from __future__ import annotations

from alembic import op

revision = "v0007"
down_revision = "v0006"


def upgrade() -> None:
    op.drop_index("answers_by_age", "answers")
    op.create_index("answers_by_age", "answers", ["created"])
