"""A data folder of the version before networks of the zoo."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dianaq_service.database import Database, JobRow
from dianaq_service.database.tables import Base


def test_a_job_needs_no_model_after_the_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    database = Database(f"sqlite:///{path}")
    database.create_tables()
    database.close()
    with sqlite3.connect(path) as connection:
        now = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'jobs'").fetchone()[0]
        before = now.replace("model_id VARCHAR", "model_id VARCHAR NOT NULL")
        assert before != now
        query = "SELECT sql FROM sqlite_master WHERE tbl_name = 'jobs' AND type = 'index' AND sql IS NOT NULL"
        indexes = [row[0] for row in connection.execute(query)]
        connection.execute("DROP TABLE jobs")
        connection.execute(before)
        for sql in indexes:
            connection.execute(sql)
    connection.close()

    database = Database(f"sqlite:///{path}")
    try:
        with database.write() as session:
            session.add(JobRow(id="job_0", owner="o", model_id="m", dataset_id="d", spec={"a": 1}, state="queued"))
        for _ in range(2):
            database.create_tables()
        with database.write() as session:
            session.add(JobRow(id="job_1", owner="o", model_id=None, dataset_id="d", spec={}, state="queued"))
        with database.read() as session:
            old = session.get_one(JobRow, "job_0")
        assert (old.model_id, old.spec, old.state) == ("m", {"a": 1}, "queued")
    finally:
        database.close()
    with sqlite3.connect(path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE tbl_name = 'jobs'")}
    connection.close()
    assert tables == set(Base.metadata.tables)
    assert {index.name for index in Base.metadata.tables["jobs"].indexes} <= found
