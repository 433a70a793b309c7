"""Tables of older versions brought to the present form. Runs within the transaction that creates what is missing."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from dianaq_service.database.tables import JobRow


def upgrade(connection: Connection) -> None:
    """Let `jobs.model_id` be empty: before networks of the zoo, every job had a model."""
    columns = {column["name"]: column for column in inspect(connection).get_columns("jobs")}
    if columns["model_id"]["nullable"]:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(text("ALTER TABLE jobs ALTER COLUMN model_id DROP NOT NULL"))
        return
    # SQLite cannot change a column: https://www.sqlite.org/lang_altertable.html#otheralter
    for index in inspect(connection).get_indexes("jobs"):
        connection.execute(text(f'DROP INDEX "{index["name"]}"'))
    connection.execute(text("ALTER TABLE jobs RENAME TO jobs_before"))
    JobRow.metadata.tables["jobs"].create(connection)
    names = ", ".join(f'"{name}"' for name in columns)
    connection.execute(text(f"INSERT INTO jobs ({names}) SELECT {names} FROM jobs_before"))
    connection.execute(text("DROP TABLE jobs_before"))
