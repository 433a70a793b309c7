"""What earlier versions wrote is read, and gone on from: data folders, bundles, checkpoints, snapshots and YAML files.

Each folder `tests/fixtures/v*` is from one version; its README says what is in it. Whoever changes a format on purpose
brings a reader of the former one along. Integer networks that follow from old checkpoints are compared bit for bit: a
change of an algorithm that is meant to give other ones takes new ones along (`fixtures.make`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from fixtures.archive import unpack
from onnx import numpy_helper
from serving import serve

from dianaq import Client, JobSpec, SweepSpec, read_report
from dianaq.cli import main as dianaq
from dianaq.cli.options import read_recipe, read_yaml
from dianaq.run import main as execute
from dianaq.schemas.events import ITERATIONS
from dianaq_quant.__main__ import main as quantise
from dianaq_service.app import create_app
from dianaq_service.settings import Settings
from dianaq_worker.embedded import LocalStack

VERSIONS = sorted((Path(__file__).parent / "fixtures").glob("v*_*"))
FOR_EVER: dict[str, Any] = {f"retention_days_{kind}": 0 for kind in ("artifacts", "uploads", "logs")}
"""The fixtures grow older than anything is kept."""
SOON = {"sweep_seconds": 0.2, "resend_seconds": 0.2}
"""The broker is new and knows of no job: whoever looks after them sends them again."""


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest) -> Path:
    """The folder of a version."""
    return Path(request.param)


@pytest.fixture
def bundle(old: Path, tmp_path: Path) -> Path:
    """The folder of an old bundle."""
    return unpack(old / "bundle.tar.xz", tmp_path / "bundle")


@dataclass
class Service:
    """The API over an old data folder."""

    client: Client
    key: str
    ids: dict[str, Any]


@pytest.fixture
def service(old: Path, tmp_path: Path) -> Iterator[Service]:
    data = unpack(old / "service.tar.xz", tmp_path / "data")
    _make_answers_fresh(data / "dianaq.sqlite")
    key = (data / "key").read_text()
    # Nobody listens at the broker's address: jobs stay queued.
    settings = Settings(data_dir=data, broker_url="redis://127.0.0.1:1/0", api_key=key, **FOR_EVER)
    with serve(create_app(settings)) as url, Client(url, key) as client:
        yield Service(client, key, _ids(old))


def _ids(old: Path) -> dict[str, Any]:
    ids: dict[str, Any] = json.loads((old / "service.json").read_text())
    return ids


def _make_answers_fresh(database: Path) -> None:
    """As if the service had been stopped a moment ago: answers to repeated requests are kept for a day."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE answers SET created = strftime('%Y-%m-%d %H:%M:%f', 'now')")


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_versions_are_found() -> None:
    assert "v0_1" in [folder.name for folder in VERSIONS]


def test_a_service_shows_what_it_has(service: Service, bundle: Path, tmp_path: Path) -> None:
    client, ids = service.client, service.ids
    assert {model.id: model.info.format for model in client.models()} == {
        ids["model"]: "onnx",
        ids["weights"]: "safetensors",
    }
    assert [dataset.id for dataset in client.datasets()] == [ids["dataset"]]
    states = {job.id: job.job.state for job in client.jobs()}
    for name in ("succeeded", "cancelled", "failed"):
        assert states[ids[name]] == name
    for name in ("queued", "interrupted"):
        assert states[ids[name]] == "queued"
    assert client.job(ids["failed"]).job.error is not None
    (sweep,) = client.sweeps()
    assert (sweep.id, sweep.states) == (ids["sweep"], {"succeeded": 2})
    rows = client.sweep(sweep.id).table().rows
    assert all(row.costs is not None and row.figures["integerise"] for row in rows)

    job = client.job(ids["succeeded"])
    events = list(job.events())
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers))
    assert [e.body.state for e in events if e.body.type == "state"] == ["queued", "running", "succeeded"]
    assert job.report() == read_report(bundle)
    assert _contents(job.download(tmp_path / "downloaded")) == _contents(bundle)


def test_new_jobs_use_old_uploads_and_old_jobs(service: Service, old: Path) -> None:
    client, ids = service.client, service.ids
    uploads = {"model": ids["model"], "dataset": ids["dataset"]}
    continued = read_recipe(old / "continued.yaml")
    for iteration in ITERATIONS:
        spec = {**uploads, **continued, "start_from": f"{ids['succeeded']}/{iteration}"}
        assert client.submit_job(JobSpec.model_validate(spec)).job.waits_for is None
    waiting = client.submit_job(JobSpec.model_validate({**spec, "start_from": f"{ids['queued']}/float"}))
    assert waiting.job.waits_for == ids["queued"]
    for name in ("succeeded", "failed", "interrupted"):
        again = client.submit_job(client.job(ids[name]).job.spec)
        assert again.job.spec == client.job(ids[name]).job.spec
    (sweep,) = client.sweeps()
    assert len(client.submit_sweep(sweep.spec.job, sweep.spec.grid).sweep.jobs) == 2
    for name in ("queued", "interrupted"):
        assert client.job(ids[name]).cancel().state == "cancelled"


def test_a_repeated_request_is_answered_as_the_first(service: Service) -> None:
    request = service.ids["request"]
    headers = {
        "Authorization": f"Bearer {service.key}",
        "Idempotency-Key": request["key"],
        "Content-Type": "application/json",
    }
    answer = httpx.post(f"{service.client.url}/v1/jobs", content=request["body"], headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (201, service.ids["queued"])


def test_a_worker_goes_on_with_what_was_interrupted(old: Path, tmp_path: Path) -> None:
    data, ids = unpack(old / "service.tar.xz", tmp_path / "data"), _ids(old)
    with LocalStack(data, settings=FOR_EVER | SOON) as stack, Client(stack.url, stack.key) as client:
        assert stack.key == (data / "key").read_text()
        client.job(ids["queued"]).cancel()
        job = client.job(ids["interrupted"])
        job.wait(progress=False)
        assert (job.job.state, job.job.attempt) == ("succeeded", 2)
        told = [e.body.message for e in job.events() if e.attempt == 2 and e.body.type == "log"]
        assert job.report().started_from is not None
    assert _resumed(told)


def _resumed(told: list[str]) -> bool:
    """Whether a snapshot was either used or refused in words; other versions of torch or dianaq refuse it."""
    return any("from a snapshot" in line or ("the snapshot" in line and "is ignored" in line) for line in told)


def test_a_bundle_is_read_and_run(old: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = read_report(bundle)
    assert report == read_report(old / "report.json")
    assert report.stages["integerise"].top1 is not None
    assert report.layers
    output = tmp_path / "output.npy"
    assert execute([str(bundle / "htvm" / "model.onnx"), str(bundle / "htvm" / "input.npy"), "-o", str(output)]) == 0
    assert np.array_equal(np.load(output), np.load(bundle / "htvm" / "output.npy"))
    assert execute([str(bundle / "dory" / "model.onnx"), str(bundle / "dory" / "input.txt")]) == 0
    assert dianaq(["compare", str(bundle), str(bundle / "bundle.zip")]) == 0
    assert "equal: " in capsys.readouterr().out


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_a_job_starts_from_a_checkpoint(old: Path, bundle: Path, tmp_path: Path, iteration: str) -> None:
    given = [str(old / "model.onnx"), "--data", str(old / "data.npz"), "--recipe", str(old / "continued.yaml")]
    out = tmp_path / "out"
    assert quantise([*given, "--start-from", f"{bundle}/{iteration}", "-o", str(out)]) == 0
    network = out / "htvm" / "model.onnx"
    then = unpack(old / "continued.tar.xz", tmp_path / "continued") / f"{iteration}.onnx"
    assert _weights(network) == _weights(then)
    assert dianaq(["compare", str(network), str(then)]) == 0
    if iteration == ITERATIONS[-1]:
        assert _weights(network) == _weights(bundle / "htvm" / "model.onnx")


def _weights(network: Path) -> list[tuple[tuple[int, ...], bytes]]:
    """The integers of an exported network's layers, whatever the tensors are called."""
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(network).graph.initializer]
    return sorted((array.shape, array.astype(np.int64).tobytes()) for array in arrays if array.ndim > 1)


def test_an_interrupted_command_goes_on(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshots = unpack(old / "snapshots.tar.xz", tmp_path / "snapshots")
    given = [str(old / "model.onnx"), "--data", str(old / "data.npz"), "--recipe", str(old / "job.yaml")]
    assert quantise([*given, "--resumable", str(snapshots), "-o", str(tmp_path / "out")]) == 0
    assert _resumed(capsys.readouterr().out.splitlines())
    assert read_report(tmp_path / "out").stages["integerise"].top1 is not None


def test_yaml_files_say_what_they_said(old: Path) -> None:
    stored = json.loads((old / "job.json").read_text())
    uploads = {name: stored[name] for name in ("model", "dataset")}
    trained = JobSpec.model_validate({**read_recipe(old / "job.yaml"), **uploads})
    assert trained == JobSpec.model_validate(stored)
    _assert_holds(trained.model_dump(mode="json", by_alias=True), stored)
    for name in ("continued", "recipe"):
        written = read_recipe(old / f"{name}.yaml")
        spec = JobSpec.model_validate({**written, **uploads})
        _assert_holds(spec.model_dump(mode="json", by_alias=True, exclude_unset=True), written)
    sweep = read_yaml(old / "sweep.yaml")
    jobs = SweepSpec.model_validate({**sweep, "job": {**sweep["job"], **uploads}}).jobs()
    assert [spec.recipe.seed for _, spec in jobs] == [0, 1, 2, 0, 1, 2]


def _assert_holds(now: Any, then: Any, where: str = "spec") -> None:
    """Whether plain data say all that they said; there may be more fields now, and words stand for mappings."""
    if isinstance(then, dict):
        for name, value in then.items():
            assert name in now, f"{where}.{name}"
            _assert_holds(now[name], value, f"{where}.{name}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for index, (new, value) in enumerate(zip(now, then, strict=True)):
            _assert_holds(new, value, f"{where}.{index}")
    elif not (isinstance(then, str) and isinstance(now, dict)):
        assert now == then, where
