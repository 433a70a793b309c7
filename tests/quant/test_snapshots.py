"""A job that died goes on from its snapshots, and leaves the very bundle that it would have left."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

from dianaq.errors import JobCancelled
from dianaq.schemas.events import EventBody, LogBody, MetricsBody, ProgressBody
from dianaq.schemas.recipe import Training
from dianaq.schemas.spec import JobSpec
from dianaq_quant import pipeline
from dianaq_quant.pipeline.starting import identity
from dianaq_quant.training import oscillation
from dianaq_quant.training.objective import Figure, Objective
from dianaq_quant.training.snapshots import Snapshots, digest

from .classes import CLASSES, data, fit
from .classes import network as classifier_of_maps
from .jobs import MIXED, TRAININGS, classifier, contents, write_files
from .stages import canonical
from .test_step import memory
from .test_step import network as limited


class Killed(Exception):
    """What ends a run in a test."""


def job(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({"model": "model.onnx", "dataset": "data.npz", **MIXED, **changes})


def run(folder: Path, out: str, *, kill: Any = lambda body: False, stop: Any = lambda: False, **changes: Any) -> Any:
    """A run with snapshots in `folder/snapshots`, and its events; it dies at the event that `kill` names."""
    events: list[EventBody] = []

    def emit(body: EventBody) -> None:
        events.append(body)
        if kill(body):
            raise Killed

    arguments = {
        "model_path": folder / "model.onnx",
        "dataset_path": folder / "data.npz",
        "out_dir": folder / out,
        "snapshots": folder / "snapshots",
    }
    pipeline.run(job(**changes), **arguments, emit=emit, should_stop=stop)
    return events


def resumptions(events: list[EventBody]) -> list[str]:
    return [body.message for body in events if isinstance(body, LogBody) and "from a snapshot" in body.message]


@pytest.fixture(scope="module", autouse=True)
def _quick_to_freeze() -> Iterator[None]:
    """The trainings here are so short that a weight has to be frozen once it jumps back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oscillation, "MEMORY", 0.3)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bundle of a run that nothing happened to, and that wrote no snapshots."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_files(folder)
    arguments = {"model_path": folder / "model.onnx", "dataset_path": folder / "data.npz", "out_dir": folder / "out"}
    pipeline.run(job(), **arguments, emit=lambda body: None)
    return contents(folder / "out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path)
    return tmp_path


def test_a_job_that_dies_in_every_epoch_and_after_every_one_ends_the_same(
    folder: Path, undisturbed: dict[str, bytes]
) -> None:
    """Each pair of runs comes one epoch further: one is killed in the middle of it, the next one at its end."""
    epochs = 6
    for attempt in range(2 * epochs):
        seen: list[EventBody] = []

        def kill(body: EventBody, seen: list[EventBody] = seen, middle: bool = attempt % 2 == 0) -> bool:
            # What is taken from a snapshot has no progress.
            seen += [body] if isinstance(body, ProgressBody) else []
            return len(seen) == 2 if middle else bool(seen) and isinstance(body, MetricsBody) and bool(body.epoch)

        with pytest.raises(Killed):
            run(folder, "out", kill=kill)
        assert not (folder / "out").exists()
        if attempt == 5:
            held = torch.load(folder / "snapshots/hardware_mapped.pt", weights_only=True)["tensors"]
            assert 0 < held["oscillations"]["frozen"].sum() < held["oscillations"]["frozen"].numel()
    events = run(folder, "out")
    assert len(resumptions(events)) == len(TRAININGS)
    assert not [body for body in events if isinstance(body, ProgressBody)]
    found = contents(folder / "out")
    assert [name for name in {*found, *undisturbed} if found.get(name) != undisturbed.get(name)] == []
    assert sorted(p.name for p in (folder / "snapshots").iterdir()) == sorted(f"{name}.pt" for name in TRAININGS)


def test_a_resumed_run_tells_the_figures_of_all_epochs(folder: Path) -> None:
    told = [body for body in run(folder, "first") if isinstance(body, MetricsBody)]
    again = run(folder, "second")
    assert [body for body in again if isinstance(body, MetricsBody)] == told
    assert resumptions(again)[2] == "hardware_mapped is taken as it ended after epoch 2 of 2, from a snapshot"


def test_a_cancelled_run_leaves_its_last_epoch(folder: Path) -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 12

    with pytest.raises(JobCancelled):
        run(folder, "out", stop=stop)
    assert [p.name for p in (folder / "snapshots").iterdir()] == ["fake_quantised.pt"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": {**MIXED["recipe"], "seed": 5}}, "spec.recipe.seed is 0 there and 5 here"),
        ({"golden": {"samples": 2}}, "spec.golden.samples is 1 there and 2 here"),
    ],
)
def test_snapshots_of_another_job_are_ignored(folder: Path, change: dict[str, Any], named: str) -> None:
    def after_the_first_epoch(body: EventBody) -> bool:
        return isinstance(body, MetricsBody) and body.epoch == 1

    with pytest.raises(Killed):
        run(folder, "out", kill=after_the_first_epoch)
    events: list[EventBody] = []

    def kill(body: EventBody) -> bool:
        events.append(body)
        return after_the_first_epoch(body)

    with pytest.raises(Killed):
        run(folder, "out", kill=kill, **change)
    warnings = [body.message for body in events if isinstance(body, LogBody) and body.level == "warning"]
    assert len(warnings) == 1
    assert f"fake_quantised.pt is ignored: it is of another job: {named}" in warnings[0]
    assert resumptions(events) == []


def test_every_part_of_a_jobs_identity_tells_jobs_apart(folder: Path) -> None:
    spec, model, dataset = job(), folder / "model.onnx", folder / "data.npz"
    first = identity(spec, model, dataset, None, "cpu")
    assert first == identity(job(), model, dataset, None, "cpu")
    assert first == identity(job(device="gpu", priority="low", deadline_hours=2), model, dataset, None, "cpu")
    dataset.write_bytes(dataset.read_bytes() + b"x")
    others = [
        identity(job(profile=True), model, dataset, None, "cpu"),
        identity(spec, None, dataset, None, "cpu"),
        identity(spec, model, dataset, None, "cpu"),
        identity(spec, model, model, None, "cpu"),
        identity(spec, model, dataset, model, "cpu"),
    ]
    assert all(first != other for other in others)
    assert set(first) == {"spec", "sha256", "versions", "device", "threads", "kernels"}


@pytest.fixture
def told() -> list[EventBody]:
    return []


@pytest.fixture
def snapshots(tmp_path: Path, told: list[EventBody]) -> Snapshots:
    return Snapshots(tmp_path, {"a": 1, "b": {"c": [2]}}, told.append)


def test_a_snapshot_comes_back_as_it_was(snapshots: Snapshots, told: list[EventBody]) -> None:
    snapshot = snapshots.of("float")
    assert snapshot.load("start") is None
    plain, tensors = {"x": 0.1 + 0.2, "nan": float("inf")}, {"a": torch.randn(3), "b": {0: {"m": torch.ones(2)}}}
    snapshot.save("start", plain, tensors)
    found = snapshot.load("start")
    assert found is not None
    assert found[0] == plain
    assert torch.equal(found[1]["a"], tensors["a"])
    assert torch.equal(found[1]["b"][0]["m"], tensors["b"][0]["m"])
    assert told == []


def test_torchs_own_random_numbers_go_on_where_they_were(snapshots: Snapshots) -> None:
    """Dropout draws from them, in the second epoch as well."""
    networks = []
    for dies in (False, True):
        torch.manual_seed(0)
        network = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, CLASSES)))
        start = {name: value.clone() for name, value in network.state_dict().items()}
        asked = iter([False] * 5 + [dies] + [False] * 100)
        arguments = {
            "snapshot": snapshots.of("float") if dies else None,
            "should_stop": lambda asked=asked: next(asked),
        }
        settings = Training(epochs=2, batch_size=64, learning_rate=0.1)  # 4 steps an epoch
        if dies:
            with pytest.raises(JobCancelled):
                fit(network, data(), settings, **arguments)
            torch.manual_seed(1)
            network.load_state_dict(start)
        fit(network, data(), settings, **arguments)
        networks.append(network)
    whole, resumed = (network.state_dict() for network in networks)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def dies_after(epoch: int) -> Any:
    """An `emit` that raises at the end of an epoch."""

    def emit(body: EventBody) -> None:
        if isinstance(body, MetricsBody) and body.epoch == epoch:
            raise Killed

    return emit


def test_a_plateau_is_counted_across_a_death(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([0.5, 0.6, 0.4, 0.4, 0.4])
    monkeypatch.setattr(Objective, "figure", lambda self, net, data: Figure((next(figures),), {"top1": 0.0}))
    settings = Training(epochs=6, batch_size=64, patience=2, schedule="constant")
    network, snapshot = classifier_of_maps(), snapshots.of("float")
    start = copy.deepcopy(network.state_dict())
    with pytest.raises(Killed):
        fit(network, data(), settings, snapshot=snapshot, emit=dies_after(2))
    network.load_state_dict(start)
    events = fit(network, data(), settings, snapshot=snapshot)
    assert [body.epoch for body in events if isinstance(body, MetricsBody)] == [1, 2, 3]
    assert any(isinstance(body, LogBody) and "ended after epoch 3 of 6" in body.message for body in events)


def test_a_training_in_parts_goes_on_in_parts(snapshots: Snapshots) -> None:
    settings, snapshot = Training(epochs=3, batch_size=64), snapshots.of("float")
    with pytest.raises(Killed):
        fit(limited(40), data(), settings, snapshot=snapshot, emit=dies_after(2))
    network = limited(40)
    fit(network, data(), settings, snapshot=snapshot)
    assert memory(network).seen == [32] * 8  # none of its last epoch is tried whole


@pytest.mark.parametrize("keep", [0, 100, -1], ids=["empty", "header", "one byte less"])
def test_a_damaged_snapshot_is_ignored(snapshots: Snapshots, told: list[EventBody], keep: int) -> None:
    snapshot = snapshots.of("float")
    snapshot.save("start", {}, {"a": torch.randn(300)})
    snapshot.path.write_bytes(snapshot.path.read_bytes()[:keep])
    assert snapshot.load("start") is None
    assert isinstance(told[0], LogBody)
    assert "is damaged" in told[0].message


def test_a_changed_byte_is_found(snapshots: Snapshots, told: list[EventBody]) -> None:
    snapshot = snapshots.of("float")
    snapshot.save("start", {}, {"a": torch.arange(300, dtype=torch.uint8)})
    content = snapshot.path.read_bytes()
    assert content.count(bytes(range(100, 120))) == 1
    snapshot.path.write_bytes(content.replace(bytes(range(100, 120)), bytes(20)))
    assert snapshot.load("start") is None
    assert isinstance(told[0], LogBody)
    assert "checksum" in told[0].message


def test_a_training_that_began_with_another_network_is_ignored(snapshots: Snapshots, told: list[EventBody]) -> None:
    network = canonical(classifier())
    start = digest(network)
    assert digest(copy.deepcopy(network)) == start
    snapshots.of("float").save(start, {}, {})
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-6
    assert digest(network) != start
    assert snapshots.of("float").load(digest(network)) is None
    assert isinstance(told[0], LogBody)
    assert "another network" in told[0].message


def test_a_snapshot_that_cannot_be_written_leaves_the_former_one(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = snapshots.of("float")
    snapshot.save("start", {"epoch": 1}, {})

    def fail(content: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="full"):
        snapshot.save("start", {"epoch": 2}, {})
    assert [p.name for p in snapshots.folder.iterdir()] == ["float.pt"]
    found = snapshot.load("start")
    assert found is not None
    assert found[0] == {"epoch": 1}
