"""`python -m dianaq_service.database.migrations "what changes"`: draft the next migration.

It compares `tables.py` with what the migrations so far make of an empty database. What it cannot know (how
the rows that are there get their new values) is for its author to add.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine

from dianaq_service.database.migrations import FOLDER, migrate, scripts
from dianaq_service.database.tables import Base, UtcDateTime


def main(message: str, folder: Path = FOLDER) -> int:
    directory = scripts(folder)
    head = directory.get_current_head() or "v0000"
    with create_engine("sqlite://").begin() as connection:
        migrate(connection, folder=folder)
        code = draft(connection)
    if code == "pass":
        print("tables.py and the migrations agree: there is nothing to migrate", file=sys.stderr)
        return 1
    script = directory.generate_revision(f"v{int(head[1:]) + 1:04}", message, head, upgrades=code)
    assert script is not None
    print(script.path)
    return 0


def draft(connection: Connection) -> str:
    """The body of a migration from the connection's tables to those of `tables.py`; `pass` when they agree."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    operations = produce_migrations(context, Base.metadata).upgrade_ops
    assert operations is not None
    code = render_python_code(operations, render_as_batch=True, render_item=_render)
    # Alembic's own remarks say that it wrote this.
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("#")).strip()


def _render(kind: str, item: Any, _: object) -> str | Literal[False]:
    # A migration must not change when tables.py does, so it names the database's type.
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m dianaq_service.database.migrations "what changes"')
    sys.exit(main(sys.argv[1]))
