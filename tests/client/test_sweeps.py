"""Sweeps: what a grid makes of a job, the table as text, and the SDK."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dianaq import Augmentation, Client, JobSpec, Preprocessing, Recipe, Training
from dianaq.errors import InvalidSpec, JobFailed, Problem
from dianaq.schemas.sweep_table import Costs, SweepRow, SweepTable
from dianaq.schemas.sweeps import MAX_JOBS, parse_sweep

from .fake_service import FakeService

ROOT = Path(__file__).parents[2]
JOB = {"model": "mdl_1", "dataset": "dat_1"}
COSTS = Costs(latency_s=1.25e-3, energy_j=3e-6, weight_bytes=2048, peak_activation_bytes=1024, total_bytes=3072)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dianaq._sweep.POLL_SECONDS", 0.01)


def jobs(job: Any, **grid: list[Any]) -> list[JobSpec]:
    return [spec for _, spec in parse_sweep({"job": job, "grid": grid}).jobs()]


def test_a_job_from_python_is_swept_like_the_file_that_says_the_same() -> None:
    grid: dict[str, list[Any]] = {"recipe.hardware_mapped.epochs": [1, 2]}
    written = {**JOB, "preprocessing": {"mean": [0.5]}, "recipe": {"preset": "qat", "seed": 3}}
    made = JobSpec(**JOB, preprocessing=Preprocessing(mean=(0.5,)), recipe=Recipe(preset="qat", seed=3))
    found = jobs(made, **grid)
    assert found == jobs(written, **grid)
    assert [spec.recipe.hardware_mapped.epochs for spec in found] == [1, 2]
    assert found[0].recipe.hardware_mapped.learning_rate == 0.03  # the preset's


def test_presets_can_be_swept() -> None:
    grid: dict[str, list[Any]] = {"recipe.preset": ["ptq", "qat"]}
    float_ = Training(epochs=1)
    for job in ({**JOB, "recipe": {"float": {"epochs": 1}}}, JobSpec(**JOB, recipe=Recipe(float_=float_))):
        found = jobs(job, **grid)
        assert [spec.recipe.float_.epochs for spec in found] == [1, 1]
        assert [spec.recipe.hardware_mapped.epochs for spec in found] == [0, 12]
    with pytest.raises(InvalidSpec, match="already filled in from the preset 'qat'; make the job without a preset"):
        jobs(JobSpec(**JOB, recipe=Recipe(preset="qat")), **grid)


def test_values_may_be_objects() -> None:
    sweep = parse_sweep(
        {"job": JOB, "grid": {"recipe.float": [Training(epochs=2, augmentation=Augmentation(flip=True))]}}
    )
    sent = parse_sweep(sweep.model_dump(mode="json", by_alias=True))
    assert sent.jobs()[0][1] == sweep.jobs()[0][1]
    assert sent.jobs()[0][1].recipe.float_.augmentation.flip


def test_a_value_takes_the_place_of_all_that_was_there_and_the_job_stays_as_it_is() -> None:
    job = {**JOB, "recipe": {"float": {"epochs": 5, "momentum": 0.5}}, "mapping": {"layers": {"a.b": "analog"}}}
    whole, layers = (
        jobs(job, **{"recipe.float": [{"epochs": 1}]}),
        jobs(job, **{"mapping.layers": [{"c.d": "digital"}]}),
    )
    assert (whole[0].recipe.float_.epochs, whole[0].recipe.float_.momentum) == (1, 0.9)
    assert whole[0].mapping.layers == {"a.b": "analog"}
    assert layers[0].mapping.layers == {"c.d": "digital"}
    assert job["recipe"] == {"float": {"epochs": 5, "momentum": 0.5}}


def test_what_the_grid_sets_may_be_missing() -> None:
    zoo = {"architecture": "resnet8", "input_shape": [3, 8, 8], "classes": 10}
    found = jobs({"model": zoo}, **{"dataset": ["dat_1"], "recipe.float.epochs": [1], "recipe.noise_sweep": [None]})
    assert found[0].dataset == "dat_1"
    assert found[0].recipe.noise_sweep is None


def row(job: str, seed: int, state: Any, **values: Any) -> SweepRow:
    return SweepRow(job=job, state=state, point={"recipe.seed": seed, "task": "classification"}, **values)


TABLE = SweepTable(
    id="swp_1",
    paths=["recipe.seed", "task"],
    rows=[
        row(
            "job_1",
            0,
            "succeeded",
            figures={"integerise": {"accuracy_test": 0.875}, "float": {"loss": 0.5, "accuracy_test": 0.9}},
            costs=COSTS,
        ),
        row("job_2", 1, "failed", figures={}, error=Problem(type="worker-lost", title="Lost", detail='it said "a, b"')),
    ],
)


def test_the_table_in_markdown() -> None:
    assert TABLE.markdown().splitlines() == [
        "| job | recipe.seed | task | state | float | integerise | latency ms | energy uJ | memory KiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| job_1 | 0 | classification | succeeded | 90.00% | 87.50% | 1.25 | 3 | 3 |",
        "| job_2 | 1 | classification | failed | - | - | - | - | - |",
    ]
    piped = SweepTable(id="s", paths=["a"], rows=[SweepRow(job="j", state="queued", point={"a": "x|y"}, figures={})])
    assert piped.markdown().splitlines()[-1] == "| j | x\\|y | queued |"


def test_the_table_in_csv_has_every_number() -> None:
    first, second = csv.DictReader(TABLE.csv().splitlines())
    assert first == {
        "job": "job_1",
        "recipe.seed": "0",
        "task": "classification",
        "state": "succeeded",
        "float.loss": "0.5",
        "float.accuracy_test": "0.9",
        "integerise.accuracy_test": "0.875",
        "latency_s": "0.00125",
        "energy_j": "3e-06",
        "weight_bytes": "2048",
        "peak_activation_bytes": "1024",
        "total_bytes": "3072",
        "error": "",
    }
    assert (second["state"], second["error"]) == ("failed", 'worker-lost: it said "a, b"')
    assert second["latency_s"] == second["integerise.accuracy_test"] == ""


def test_submit_wait_and_compare(service: FakeService, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = client.submit_sweep(JobSpec(**JOB), {"recipe.seed": [0, 1]})
    assert service.sweep is not None
    assert [spec.recipe.seed for _, spec in service.sweep.spec.jobs()] == [0, 1]
    assert repr(sweep) == "<SweepHandle swp_1: 2 jobs: 2 queued>"
    service.sweep_states = [["queued", "running"], ["queued", "running"], ["succeeded", "succeeded"]]
    service.table = TABLE
    assert sweep.wait().ended
    assert capsys.readouterr().out.splitlines() == [
        "  2 jobs: 1 queued, 1 running",
        "  2 jobs: 2 succeeded",
    ]
    assert sweep.table() == TABLE
    assert [found.id for found in client.sweeps()] == ["swp_1"]


def test_a_sweep_with_failed_jobs_runs_to_its_end(service: FakeService, client: Client) -> None:
    sweep = client.submit_sweep(JOB, {"recipe.seed": [0, 1]})
    service.sweep_states = [["failed", "running"], ["failed", "succeeded"]]
    with pytest.raises(JobFailed, match="did not succeed: 2 jobs: 1 succeeded, 1 failed"):
        sweep.wait(progress=False)
    assert sweep.wait(progress=False, raise_on_failure=False).states == {"succeeded": 1, "failed": 1}


def test_waiting_ends_after_its_time(client: Client) -> None:
    sweep = client.submit_sweep(JOB, {"recipe.seed": [0]})
    assert [job.id for job in sweep.jobs()] == ["job_1"]
    with pytest.raises(TimeoutError, match="1 queued; its jobs go on"):
        sweep.wait(progress=False, timeout=0)
    assert sweep.cancel().states == {"cancelled": 1}


def test_a_service_that_is_away_for_a_while_does_not_end_the_wait(
    service: FakeService, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = client.submit_sweep(JOB, {"recipe.seed": [0]})
    away = Problem(type="service-unavailable", title="Away", detail="restarting", status=503)
    service.answer = away

    def back(_: float) -> None:
        service.answer = None
        service.sweep_states = [["succeeded"]]

    monkeypatch.setattr("dianaq._sweep.time.sleep", back)
    assert sweep.wait(progress=False).states == {"succeeded": 1}


def test_an_unusable_sweep_is_refused_before_it_is_sent(service: FakeService, client: Client) -> None:
    with pytest.raises(InvalidSpec, match="grid is empty"):
        client.submit_sweep(JOB, {})
    assert service.requests == []


def test_the_documentation_shows_the_example_and_what_it_says_can_be_swept() -> None:
    (shown,) = re.findall(
        r"```yaml\n# examples/sweep.yaml\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.DOTALL
    )
    example = (ROOT / "examples" / "sweep.yaml").read_text()
    assert example.endswith(shown)
    data = yaml.safe_load(example)
    assert len(parse_sweep({**data, "job": {**data["job"], **JOB}}).jobs()) == 6
    text = " ".join((ROOT / "docs" / "sweeps.md").read_text().split())
    assert f"A sweep has {MAX_JOBS} of them at most" in text
    (fields,) = re.findall(r"\*\*Any field\*\* can be swept: (.*?)- \*\*The jobs\*\*", text)
    swept = [yaml.safe_load(code) for code in re.findall(r"`([^`]*: \[[^`]*)`", fields)]
    assert [list(grid) for grid in swept] == [
        ["mapping.default"],
        ["recipe.quantisers.weights.init"],
        ["recipe.preset"],
        ["model"],
        ["mapping.layers"],
    ]
    for grid in swept:
        assert len(parse_sweep({"job": JOB, "grid": grid}).jobs()) == 2
