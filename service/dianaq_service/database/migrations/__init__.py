"""The steps from one form of the tables to the next (`versions`), applied when a process starts.

There is no way back: a program refuses a database that a newer one has changed, and a backup is the way to
return (docs/database.md). Databases from before there were migrations carry no version; their tables tell it.
"""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from dianaq.errors import InvalidSpec

FOLDER = Path(__file__).parent


def scripts(folder: Path = FOLDER) -> ScriptDirectory:
    """The migrations, as Alembic sees them."""
    config = Config()
    # Alembic's options interpolate %, and a folder's name may have one.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return ScriptDirectory.from_config(config)


def migrate(connection: Connection, target: str = "head", folder: Path = FOLDER) -> None:
    """Bring the tables to a version, in the transaction of the connection. The caller keeps other writers out.

    Raises:
        InvalidSpec: a newer program has changed this database.
    """
    directory = scripts(folder)
    context = MigrationContext.configure(connection)
    current = context.get_current_revision()
    if current is None and (current := _version_by_tables(connection)) is not None:
        context.stamp(directory, current)
    known = [script.revision for script in directory.walk_revisions()]
    if current is not None and current not in known:
        raise InvalidSpec(
            f"the database has the tables of version {current}, and this program knows those up to {known[0]}; "
            "run the newer program, or restore the backup from before it first ran",
            param="DIANAQ_DATABASE_URL",
        )
    with Operations.context(context):
        for script in reversed(list(directory.iterate_revisions(target, current or "base"))):
            script.module.upgrade()
            context.stamp(directory, script.revision)


def _version_by_tables(connection: Connection) -> str | None:
    """The version of tables that carry none; None when there are no tables."""
    inspector = inspect(connection)
    if not inspector.has_table("jobs"):
        return None
    nullable = {column["name"]: column["nullable"] for column in inspector.get_columns("jobs")}
    return "v0002" if nullable["model_id"] else "v0001"
