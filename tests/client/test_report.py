"""Typed reports: read from a bundle, from the service, and refused when they are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dianaq import Client, JobHandle, JobReport, read_report
from dianaq.errors import Conflict, ServiceError
from dianaq.schemas.report import parse_report

from .fake_service import FakeService

REPORT: dict[str, Any] = {
    "format": 1,
    "spec": {"model": "m", "dataset": "d"},
    "seed": 0,
    "versions": {"dianaq": "0.1.0"},
    "started_from": None,
    "device": "cpu",
    "threads": 1,
    "samples": {"test": 10},
    "accuracy": [
        {"stage": "float", "split": "test", "samples": 10, "top1": 0.5, "loss": 1.5},
        {"stage": "integerise", "split": "test", "samples": 10, "top1": 0.4, "loss": 1.75},
    ],
    "training": [{"stage": "float", "epoch": 1, "loss": 1, "accuracy_val": 0.25}],
    "noise_sweep": [{"gaussian": 0.5, "draws": 2, "samples": 10, "top1": {"mean": 0.5, "std": 0.1}}],
    "layers": [{"name": "conv", "operation": "Conv2d", "shape": [8, 4, 4], "core": "analog", "range": [0, 127]}],
    "edits": [],
    "notes": [],
    "verification": {"data_samples": 1, "random_samples": 2, "tensors": 3, "executions": ["one", "two"]},
    "timings": {"float": 1.5},  # written up to 0.1.0
}


def content(**changes: Any) -> bytes:
    return json.dumps(REPORT | changes).encode()


def test_a_report_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(content())
    report = read_report(tmp_path)
    assert report == read_report(tmp_path / "report.json")
    assert report.stages["integerise"].top1 == 0.4
    assert report.training[0].figures == {"loss": 1.0, "accuracy_val": 0.25}
    assert report.noise_sweep[0].top1 is not None
    assert report.noise_sweep[0].top1.std == 0.1
    assert (report.layers[0].core, report.layers[0].range, report.layers[0].sqnr_db) == ("analog", (0, 127), None)
    assert parse_report(content(verification={})).verification is None
    assert (report.cost, report.warnings, report.tensors) == (None, [], {})


def test_fields_of_a_newer_service_do_not_disturb() -> None:
    report = parse_report(content(invented=[1], layers=[{**REPORT["layers"][0], "invented": 2}]))
    assert report.model_dump(exclude_unset=True)["invented"] == [1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>", "not a report"),
        (b"[]", "not a report"),
        (content(seed="many"), "seed"),
        (content(layers=[{"name": "conv", "shape": []}]), "layers.0.operation"),
        (content(format=2), "format 2, this version reads 1"),
        (content(format=0), "format"),
        (content(training=[{"stage": "float", "epoch": 1, "loss": "low"}]), "training.0.loss"),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        parse_report(data)


def test_a_missing_report_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_report(tmp_path)


@pytest.fixture
def job(service: FakeService, client: Client) -> JobHandle:
    service.move("succeeded")
    service.artifact, service.bundle = "report.json", content()
    return client.job("job_1")


def test_a_jobs_report(job: JobHandle) -> None:
    report = job.report()
    assert isinstance(report, JobReport)
    assert report.stages["float"].loss == 1.5


def test_a_damaged_report_is_noticed(service: FakeService, job: JobHandle) -> None:
    service.listed_sha256 = "0" * 64
    with pytest.raises(ServiceError, match="arrived damaged"):
        job.report()


def test_a_failed_job_has_none(service: FakeService, client: Client) -> None:
    service.move("failed")
    with pytest.raises(Conflict, match="failed and has no bundle"):
        client.job("job_1").report()
