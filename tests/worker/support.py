"""A model, a dataset and jobs of them, put where uploads and the API would have put them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from dianaq.schemas.events import Event
from dianaq.schemas.resources import DatasetInfo, ModelInfo, SplitInfo, TensorInfo
from dianaq.schemas.spec import JobSpec
from dianaq_service.database import Database, DatasetRow, JobRow, ModelRow
from dianaq_service.events import repository
from dianaq_service.ids import new_id
from dianaq_service.jobs.states import move
from dianaq_service.storage import Storage
from dianaq_worker import leases

FAKES = Path(__file__).parent / "fakes"
OWNER = "default"
CONTENT = b"uploaded"

MODEL_INFO = ModelInfo(
    opset=17,
    input=TensorInfo(name="x", shape=(3, 8, 8)),
    output=TensorInfo(name="y", shape=(10,)),
    operators={"Conv": 1},
    layers=("conv1",),
    parameters=10,
)
SPLIT = SplitInfo(samples=100, sample_shape=(8, 8, 3), dtype="uint8", label_min=0, label_max=9)


def with_fakes() -> str:
    """`PYTHONPATH` of processes that find the fake pipeline first."""
    return os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))


def add_uploads(
    database: Database, storage: Storage, model_content: bytes = CONTENT, dataset_content: bytes = CONTENT
) -> dict[str, str]:
    """A model and a dataset; gives the part of a job spec that names them."""
    model = ModelRow(id=new_id("mdl"), info=MODEL_INFO.model_dump(mode="json"), **_blob(storage, model_content))
    info = DatasetInfo(splits={"train": SPLIT})
    dataset = DatasetRow(id=new_id("dat"), info=info.model_dump(mode="json"), **_blob(storage, dataset_content))
    with database.write() as session:
        session.add_all([model, dataset])
    return {"model": model.id, "dataset": dataset.id}


def _blob(storage: Storage, content: bytes) -> dict[str, Any]:
    """Store a content as an upload is; what its row says of it."""
    sha256 = hashlib.sha256(content).hexdigest()
    blob = storage.blob(OWNER, sha256)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    return {"owner": OWNER, "name": "n", "sha256": sha256, "size": len(content)}


def add_job(database: Database, storage: Storage, behaviour: int = 0, **changes: Any) -> str:
    """A queued job for the fake pipeline."""
    return add_job_of(database, add_uploads(database, storage), recipe={"seed": behaviour}, **changes)


def add_job_of(database: Database, uploads: dict[str, str], *, owner: str = OWNER, **changes: Any) -> str:
    """A queued job."""
    spec = JobSpec.model_validate({**uploads, **changes})
    row = JobRow(
        id=new_id("job"),
        owner=owner,
        model_id=uploads["model"],
        dataset_id=uploads["dataset"],
        spec=spec.model_dump(mode="json", by_alias=True),
        state="queued",
    )
    with database.write() as session:
        session.add(row)
        session.flush()
        move(session, row.id, "queued")
    return row.id


def lose_worker(database: Database, job_id: str) -> None:
    """End the present attempt of a job as if its worker were gone."""
    (lease,) = (lease for lease in leases.current(database) if lease.job_id == job_id)
    leases.end(database, lease, 3)


def overtake(database: Database, job_id: str) -> None:
    """The same, and start another one."""
    lose_worker(database, job_id)
    assert leases.claim(database, job_id, "other", 30) is not None


def row_of(database: Database, job_id: str) -> JobRow:
    with database.read() as session:
        return session.get_one(JobRow, job_id)


def history(database: Database, job_id: str) -> list[Event]:
    with database.read() as session:
        return repository.page(session, job_id, 0, 1000)


def states(events: Iterable[Event]) -> list[str]:
    return [event.body.state for event in events if event.body.type == "state"]


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return answer


def family(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def all_gone(processes: Iterable[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
