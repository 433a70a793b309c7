"""The API in a thread of this process, with two owners, and rows put where uploads would have put them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from serving import serve

from dianaq.schemas.resources import Artifact, DatasetInfo, ModelInfo, SplitInfo, TensorInfo, WeightsInfo
from dianaq_service.app import create_app
from dianaq_service.artifacts.repository import add as add_artifacts
from dianaq_service.database import DatasetRow, JobRow, ModelRow
from dianaq_service.ids import new_id
from dianaq_service.jobs.states import move
from dianaq_service.keys.service import add, make_key
from dianaq_service.settings import Settings
from dianaq_service.web.services import Services

MODEL_INFO = ModelInfo(
    opset=17,
    input=TensorInfo(name="x", shape=(3, 8, 8)),
    output=TensorInfo(name="y", shape=(10,)),
    operators={"Conv": 1},
    layers=("conv1",),
    parameters=10,
)
WEIGHTS_INFO = WeightsInfo(format="pytorch", tensors=3, bytes=28)
ZOO = {"architecture": "resnet8", "input_shape": [3, 8, 8], "classes": 10}
"""A network that the dataset below fits."""
SPLIT = SplitInfo(samples=100, sample_shape=(8, 8, 3), dtype="uint8", label_min=0, label_max=9)
DATASET_INFO = DatasetInfo(splits={"train": SPLIT})


@dataclass
class Api:
    client: httpx.Client
    """Speaks as alice."""
    bob: dict[str, str]
    """Headers of somebody else."""
    services: Services

    def add_model(self, owner: str = "alice") -> str:
        return self.add(ModelRow, "mdl", owner, MODEL_INFO)

    def add_weights(self, owner: str = "alice") -> str:
        return self.add(ModelRow, "mdl", owner, WEIGHTS_INFO)

    def add_dataset(self, owner: str = "alice") -> str:
        return self.add(DatasetRow, "dat", owner, DATASET_INFO)

    def add(self, table: Any, prefix: str, owner: str, info: BaseModel) -> str:
        """An upload of which inspection found this."""
        found = info.model_dump(mode="json")
        row = table(id=new_id(prefix), owner=owner, name="n", sha256="0" * 64, size=1, info=found)
        with self.services.database.write() as session:
            session.add(row)
        return str(row.id)

    def submit(self, **spec: Any) -> dict[str, Any]:
        body = {"model": self.add_model(), "dataset": self.add_dataset(), **spec}
        response = self.client.post("/v1/jobs", json=body)
        assert response.status_code == 201, response.text
        return dict(response.json())

    def put_in_state(self, job_id: str, state: Any, **values: Any) -> None:
        with self.services.database.write() as session:
            move(session, job_id, state, **values)

    def succeed(self, job_id: str, *artifacts: str) -> None:
        """End a job well, with these files (in the database alone)."""
        self.put_in_state(job_id, "running", attempt=1)
        self.put_in_state(job_id, "succeeded")
        with self.services.database.write() as session:
            add_artifacts(session, job_id, [Artifact(path=path, size=1, sha256="0" * 64) for path in artifacts])

    def row(self, job_id: str) -> JobRow:
        with self.services.database.read() as session:
            return session.get_one(JobRow, job_id)

    def files(self) -> list[Path]:
        """Every uploaded file, whole or not."""
        root = self.services.storage.root
        return [p for name in ("blobs", "incoming") for p in (root / name).rglob("*") if p.is_file()]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        # SQLite lives in the data folder.
        database_url="" if database_url.startswith("sqlite") else database_url,
        # Nobody listens there: jobs stay queued.
        broker_url="redis://127.0.0.1:1/0",
        api_key=make_key(),
        owner="alice",
        max_upload_bytes=1_000_000,
    )


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    app = create_app(settings)
    key = make_key()
    headers = {"Authorization": f"Bearer {settings.api_key}"}
    with serve(app) as url, httpx.Client(base_url=url, headers=headers, timeout=30, verify=False) as client:
        assert client.get("/v1/health").status_code == 200
        services = app.state.services
        with services.database.write() as session:
            add(session, "bob", key)
        yield Api(client, {"Authorization": f"Bearer {key}"}, services)
