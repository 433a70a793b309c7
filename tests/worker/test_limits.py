"""Real processes that run into each limit: the job fails for good, and says what to change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dianaq_service.database import Database, JobRow
from dianaq_service.queue import JobQueue
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import cgroup, limits, supervisor
from dianaq_worker.child.__main__ import NICENESS
from dianaq_worker.supervisor import Supervisor

from .fakes.dianaq_quant import pipeline as fake
from .support import add_job, history, row_of, states, wait_for

pytestmark = pytest.mark.usefixtures("fake_pipeline")


class Runner:
    """Runs one job with changed settings."""

    def __init__(self, settings: Settings, database: Database, storage: Storage, queue: JobQueue) -> None:
        self.settings, self.database, self.storage, self.queue = settings, database, storage, queue

    def __call__(self, behaviour: int, *, kind: Any = "cpu", child: Any = None, **changes: Any) -> JobRow:
        job = add_job(self.database, self.storage, behaviour)
        settings = replace(self.settings, **changes)
        Supervisor(settings, self.database, self.queue, child=child, kind=kind).run(job)
        return row_of(self.database, job)


@pytest.fixture
def run(settings: Settings, database: Database, storage: Storage, queue: JobQueue) -> Runner:
    return Runner(settings, database, storage, queue)


@pytest.mark.parametrize(
    ("behaviour", "field", "value"),
    [
        (fake.FILL_MEMORY, "child_memory_bytes", 2 * 1024**3),
        (fake.BURN, "child_cpu_seconds", 3),
        (fake.FILL_DISK, "child_file_bytes", 8 * 1024**2),
        (fake.OPEN_FILES, "child_open_files", 200),
    ],
)
def test_going_beyond_a_limit_fails_the_job_for_good(run: Runner, behaviour: int, field: str, value: int) -> None:
    row = run(behaviour, **{field: value})
    assert row.error is not None, run.storage.log(row.id, 1).read_text()
    variable = f"DIANAQ_{field.upper()}"
    assert (row.state, row.losses, row.attempt) == ("failed", 0, 1)
    assert (row.error["type"], row.error["param"]) == ("limit-exceeded", variable)
    assert f"{value:,}" in row.error["detail"]
    assert variable in row.error["detail"]
    assert states(history(run.database, row.id)) == ["queued", "running", "failed"]
    assert not run.storage.work(row.id, 1).exists()


def test_no_core_is_left(run: Runner) -> None:
    row = run(fake.CORE)
    assert row.error is not None
    assert "(0, 0)" in row.error["detail"]


def test_the_address_space_of_a_gpus_process_is_its_own_affair(settings: Settings) -> None:
    assert "RLIMIT_AS" in limits.limits(settings, "cpu")
    assert "RLIMIT_AS" not in limits.limits(settings, "gpu")


def test_other_exceptions_are_not_taken_for_limits(settings: Settings) -> None:
    for error in (ValueError("no memory of it"), OSError(2, "no such file"), RuntimeError("shape mismatch")):
        assert limits.of_exception(error, settings) is None
    try:
        try:
            raise MemoryError
        except MemoryError as refused:
            raise ValueError("the tensor cannot be made") from refused
    except ValueError as error:
        found = limits.of_exception(error, settings)
    assert found is not None
    assert found.param == "DIANAQ_CHILD_MEMORY_BYTES"
    torch = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
    assert limits.of_exception(torch, settings) is not None


@pytest.mark.parametrize("code", [0, 1, 7, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGSEGV])
def test_other_ends_are_not_taken_for_limits(settings: Settings, code: int) -> None:
    assert limits.of_exit(code, settings) is None


class Kernel:
    """Folders in the place of cgroups, which tests may not make: it counts kills as the kernel does."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def child(self, path: str) -> list[str]:
        """A child that is killed, after the kernel noted in a group that it killed for memory."""
        code = (
            "import os, pathlib, sys; path = pathlib.Path(sys.argv[1].format(job=sys.argv[2], attempt=sys.argv[3])); "
            "path.write_text('low 0\\noom 1\\noom_kill 1\\noom_group_kill 1\\n'); os.kill(os.getpid(), 9)"
        )
        return [sys.executable, "-c", code, f"{self.root}/{path}/memory.events"]


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    root = tmp_path / "cgroup"
    root.mkdir()
    return Kernel(root)


def test_a_kill_in_the_groups_own_limit_is_the_jobs_fault(run: Runner, kernel: Kernel) -> None:
    memory = 3 * 1024**3
    child = kernel.child("{job}-{attempt}")
    row = run(fake.SUCCEED, kind="gpu", child=child, cgroup=str(kernel.root), child_memory_bytes=memory)
    assert row.error is not None
    assert (row.state, row.losses) == ("failed", 0)
    assert (row.error["type"], row.error["param"]) == ("limit-exceeded", "DIANAQ_CHILD_MEMORY_BYTES")
    group = kernel.root / f"{row.id}-1"
    assert (group / "memory.max").read_text() == str(memory)
    assert (group / "cgroup.procs").read_text() == "0", "the process joins the group itself"


def test_a_kill_around_the_process_is_a_loss_with_a_reason(
    run: Runner, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "_own_group", lambda: kernel.root)
    (kernel.root / "memory.events").write_text("oom_kill 0\n")
    row = run(fake.SUCCEED, child=kernel.child("."))
    assert (row.state, row.losses) == ("queued", 1)
    (message,) = [e.body.message for e in history(run.database, row.id) if e.body.type == "log"]
    assert "because memory ran out" in message


def test_a_group_that_cannot_be_made_stops_no_job(run: Runner, tmp_path: Path) -> None:
    assert run(fake.SUCCEED, cgroup=str(tmp_path / "none" / "of it")).state == "succeeded"


def test_a_deadline_ends_the_job(settings: Settings, database: Database, storage: Storage, queue: JobQueue) -> None:
    job = add_job(database, storage, fake.IGNORE_CANCEL, deadline_hours=1.5 / 3600)
    Supervisor(settings, database, queue).run(job)
    row = row_of(database, job)
    assert row.error is not None
    assert (row.state, row.losses, row.attempt) == ("failed", 0, 1)
    assert (row.error["type"], row.error["param"]) == ("deadline-exceeded", "deadline_hours")


def test_waiting_does_not_count_for_the_deadline_and_former_attempts_do(
    settings: Settings, database: Database, storage: Storage, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(database, storage, fake.HANG, deadline_hours=1)
    with database.write() as session:
        row = session.get_one(JobRow, job)
        # Long ago, by the clock of the wall.
        row.created = row.created.replace(year=2001)
        row.started = row.created
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.1)
    first = Supervisor(settings, database, queue)
    thread = threading.Thread(target=first.run, args=(job,))
    thread.start()
    wait_for(lambda: row_of(database, job).ran_seconds > 0)
    assert row_of(database, job).state == "running"
    first.stop()
    thread.join()
    assert row_of(database, job).state == "queued"
    with database.write() as session:
        session.get_one(JobRow, job).ran_seconds = 3600.0
    Supervisor(settings, database, queue).run(job)
    row = row_of(database, job)
    assert row.error is not None
    assert (row.state, row.attempt, row.error["type"]) == ("failed", 2, "deadline-exceeded")


def test_a_child_may_not_have_more_than_its_worker(run: Runner) -> None:
    code = "import resource, sys; sys.exit(resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 10**7)"
    row = run(fake.SUCCEED, child=[sys.executable, "-c", code], child_open_files=2 * 10**9)
    message = history(run.database, row.id)[-2].body
    assert message.type == "log"
    assert "exited with code 0" in message.message
    assert os.sysconf("SC_OPEN_MAX") < 2 * 10**9


def test_a_child_gives_way_to_other_processes() -> None:
    program = "from dianaq_worker.child.__main__ import give_way; import os; give_way(); print(os.nice(0))"
    niceness = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, start_new_session=True
    )
    assert int(niceness.stdout) == min(os.nice(0) + NICENESS, 19)
