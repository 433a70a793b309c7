"""From every older form of the tables to the present one, on both databases."""

from __future__ import annotations

import importlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import ON_BOTH
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from dianaq.errors import InvalidSpec
from dianaq_service.database import Database, JobRow
from dianaq_service.database.migrations import FOLDER, migrate, scripts
from dianaq_service.database.tables import Base

OLD_JOB = """
    INSERT INTO jobs (id, owner, model_id, dataset_id, spec, state, metrics, created, attempt, losses, last_seq)
    VALUES ('job_0', 'o', 'm', 'd', '{"a": 1}', 'queued', '{}', '2026-11-24 00:00:00', 2, 1, 7)"""

draft = importlib.import_module("dianaq_service.database.migrations.__main__")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def version(connection: Connection) -> str:
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


@ON_BOTH
def test_migrations_and_tables_agree(database: Database, engine: Engine) -> None:
    database.create_tables()
    with engine.connect() as connection:
        assert draft.draft(connection) == "pass"
        assert version(connection) == scripts().get_current_head()


@ON_BOTH
def test_a_difference_is_found(database: Database, engine: Engine) -> None:
    """What the test above stands on."""
    database.create_tables()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN stage"))
        connection.execute(text("DROP INDEX ix_models_owner"))
    with engine.connect() as connection:
        code = draft.draft(connection)
    assert "add_column(sa.Column('stage', sa.String(), nullable=True))" in code
    assert "ix_models_owner" in code


def test_versions_are_numbered_in_order() -> None:
    names = sorted(path.name for path in Path(scripts().versions).glob("v*.py"))
    order = [Path(script.path).name for script in reversed(list(scripts().walk_revisions()))]
    assert order == names
    assert [name[:5] for name in names] == [f"v{number:04}" for number in range(1, len(names) + 1)]


@ON_BOTH
@pytest.mark.parametrize("release", ["v0001", "v0002"])
def test_a_database_of_before_there_were_migrations_keeps_its_rows(
    database: Database, engine: Engine, release: str
) -> None:
    times = "DATETIME" if database.sqlite else "TIMESTAMP"
    model = " NOT NULL" if release == "v0001" else ""
    first = (Path(__file__).parent / "first_release.sql").read_text()
    statements = first.replace("TIMESTAMP", times).replace("model_id VARCHAR NOT NULL", f"model_id VARCHAR{model}")
    with engine.begin() as connection:
        for statement in [*statements.split(";")[:-1], OLD_JOB]:
            connection.exec_driver_sql(statement)
    for _ in range(2):
        database.create_tables()
    with database.write() as session:
        session.add(JobRow(id="job_1", owner="o", model_id=None, dataset_id="d", spec={}, state="queued"))
    with database.read() as session:
        old = session.get_one(JobRow, "job_0")
    assert (old.model_id, old.spec, old.state, old.attempt, old.last_seq) == ("m", {"a": 1}, "queued", 2, 7)
    with engine.connect() as connection:
        assert draft.draft(connection) == "pass"
        assert set(inspect(connection).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


@ON_BOTH
def test_a_newer_database_is_refused(database: Database, engine: Engine) -> None:
    database.create_tables()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))
    with pytest.raises(InvalidSpec, match=f"version v9999, .* up to {scripts().get_current_head()}; .* the backup"):
        database.create_tables()


@ON_BOTH
def test_a_migration_that_fails_changes_nothing(
    database: Database, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        migrate(connection, "v0001")

    def broken(connection: Connection) -> None:
        migrate(connection)
        raise ZeroDivisionError

    monkeypatch.setattr("dianaq_service.database.engine.migrate", broken)
    with pytest.raises(ZeroDivisionError):
        database.create_tables()
    with engine.connect() as connection:
        assert version(connection) == "v0001"
        columns = {column["name"]: column["nullable"] for column in inspect(connection).get_columns("jobs")}
    assert columns["model_id"] is False


@ON_BOTH
def test_several_may_start_at_once(database_url: str, engine: Engine) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(4)

    def begin() -> None:
        database = Database(database_url)
        try:
            together.wait(20)
            database.create_tables()
        except BaseException as error:
            errors.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with engine.connect() as connection:
        assert draft.draft(connection) == "pass"


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "postgresql://u:secret@h/d", "nonsense-secret"])
def test_another_database_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(InvalidSpec, match="takes sqlite:///FILE or postgresql") as caught:
        Database(url)
    assert "secret" not in caught.value.detail
    assert caught.value.param == "DIANAQ_DATABASE_URL"


def test_a_draft_is_the_next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder)
    assert draft.main("Nothing", folder) == 1
    (folder / "versions" / "v0002_jobs_without_a_model.py").write_text(
        'revision = "v0002"\ndown_revision = "v0001"\n\n\ndef upgrade() -> None:\n    pass\n'
    )
    for path in folder.glob("versions/v000[3-9]*.py"):  # whatever came later
        path.unlink()
    assert draft.main("Jobs without a model", folder) == 0
    (made,) = folder.glob("versions/v0003*.py")
    assert made.name == "v0003_jobs_without_a_model.py"
    code = made.read_text()
    compile(code, made.name, "exec")
    assert "down_revision = 'v0002'" in code
    assert "    with op.batch_alter_table('jobs', schema=None) as batch_op:\n" in code
    assert "alter_column('model_id'" in code
    assert "create_table('sweeps'" in code
