"""Jobs that start from a checkpoint end as the job would have that made it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dianaq.errors import InvalidDataset, InvalidModel, InvalidSpec
from dianaq.schemas.events import ITERATIONS, LogBody
from dianaq.schemas.recipe import merge
from dianaq.schemas.resources import DatasetInfo, SplitInfo
from dianaq.schemas.spec import JobSpec
from dianaq_quant import notebook, pipeline
from dianaq_quant.checkpoint import Checkpoint, load
from dianaq_quant.checkpoint.records import META
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.pipeline.starting import check_start, origin_of

from .builder import ModelBuilder
from .stages import imported
from .support import Outcome, quantise

EPOCH = {"epochs": 1, "learning_rate": 0.01, "batch_size": 16, "distillation": 0.5}
QUANTISERS = {"activations": {"function": "tqt"}}
SPEC: dict[str, Any] = {
    "preprocessing": {"mean": [0.4], "std": [0.5]},
    "mapping": {"layers": {"second": "analog"}},
    "recipe": {
        "quantisers": QUANTISERS,
        "float": {**EPOCH, "distillation": 0.0},
        "fake_quantised": EPOCH,
        "hardware_mapped": EPOCH,
        "hardware_exact": EPOCH,
        "noise": {"gaussian": 0.5},
    },
}
SAMPLES = 64
ZOO = {"architecture": "resnet8", "input_shape": [3, 5, 5], "classes": 3}


def model(seed: int = 3) -> onnx.ModelProto:
    b = ModelBuilder((3, 5, 5), seed=seed)
    y = b.relu(b.batch_norm(b.conv(b.input, 4, pads=(1, 1, 1, 1), bias=False, name="first")))
    y = b.relu(b.add(b.batch_norm(b.conv(y, 4, pads=(1, 1, 1, 1), bias=False, name="second")), y))
    return b.build(b.gemm(b.flatten(b.global_pool(y)), 3, name="head"))


def dataset(shape: tuple[int, ...] = (5, 5, 3)) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, SAMPLES)
    x = random.integers(0, 256, (SAMPLES, *shape)).astype(np.uint8)
    return {"x_train": x, "y_train": y, "x_test": x[:20], "y_test": y[:20]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A job that trains all four iterations, one layer being analog and suffering noise."""
    return quantise(model(), dataset(), tmp_path_factory.mktemp("whole"), **SPEC)


def remaining(iteration: str, spec: dict[str, Any] = SPEC) -> dict[str, Any]:
    """The specification with no epochs up to an iteration."""
    skipped = ITERATIONS[: [str(i) for i in ITERATIONS].index(iteration) + 1]
    return merge(spec, {"recipe": {name: {"epochs": 0} for name in skipped}})


def start(
    whole: Outcome,
    iteration: str,
    folder: Path,
    spec: dict[str, Any],
    *,
    network: onnx.ModelProto | None = None,
    arrays: dict[str, np.ndarray] | None = None,
    with_model: bool = True,
) -> Outcome:
    """A job that starts from a checkpoint of the whole one."""
    onnx.save(network or model(), str(folder / "model.onnx"))
    np.savez(folder / "data.npz", **(arrays or dataset()))
    outcome = Outcome(folder / "bundle")
    pipeline.run(
        JobSpec.model_validate({"model": "model.onnx", "dataset": "data.npz", **spec}),
        model_path=folder / "model.onnx" if with_model else None,
        dataset_path=folder / "data.npz",
        out_dir=outcome.folder,
        emit=outcome.events.append,
        start_from=whole.folder / "checkpoints" / f"{iteration}.pt",
    )
    return outcome


def content(outcome: Outcome, name: str = "htvm/model.onnx") -> bytes:
    return (outcome.folder / name).read_bytes()


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_a_job_goes_on_as_the_one_that_made_the_checkpoint(whole: Outcome, tmp_path: Path, iteration: str) -> None:
    later = start(whole, iteration, tmp_path, remaining(iteration))
    for name in ("htvm/model.onnx", "htvm/output.npy", "dory/model.onnx"):
        assert content(later, name) == content(whole, name)
    left = ITERATIONS[[str(i) for i in ITERATIONS].index(iteration) + 1 :]
    assert later.finished() == [*left, "integerise", "export", "verify"]
    assert sorted(p.stem for p in later.folder.glob("checkpoints/*")) == sorted(left)
    for name in left:
        assert content(later, f"checkpoints/{name}.pt") == content(whole, f"checkpoints/{name}.pt")
    report = later.report
    assert report["accuracy"] == [e for e in whole.report["accuracy"] if e["stage"] in later.finished()]
    digest = hashlib.sha256(content(whole, f"checkpoints/{iteration}.pt")).hexdigest()
    assert (report["started_from"]["iteration"], report["started_from"]["sha256"]) == (iteration, digest)
    assert f"started from the network after {iteration}; the stages before were left out" in report["notes"]
    assert any(isinstance(e, LogBody) and f"after {iteration}" in e.message for e in later.events)


def test_every_bundle_has_a_checkpoint_of_each_iteration(whole: Outcome) -> None:
    assert whole.report["started_from"] is None
    files = json.loads(content(whole, "manifest.json"))["files"]
    assert {name for name in files if name.startswith("checkpoints/")} == {f"checkpoints/{i}.pt" for i in ITERATIONS}
    assert "`checkpoints/*.pt`" in content(whole, "README.md").decode()
    for iteration in ITERATIONS:
        checkpoint = load(whole.folder / "checkpoints" / f"{iteration}.pt")
        assert checkpoint.iteration == iteration
        assert checkpoint.origin.input_shape == (3, 5, 5)
        assert (checkpoint.origin.task, checkpoint.origin.seed) == ("classification", 0)
        assert checkpoint.origin.preprocessing.mean == (0.4,)
        assert (
            checkpoint.origin.model_sha256
            == hashlib.sha256((whole.folder.parent / "model.onnx").read_bytes()).hexdigest()
        )
        assert {key for node in checkpoint.network.graph.nodes for key in node.meta} <= set(META)


def test_after_float_the_cores_can_be_chosen_anew(whole: Outcome, tmp_path: Path) -> None:
    moved = merge(SPEC, {"recipe": {"quantisers": {"activations": {"function": "ste"}}}}) | {"mapping": {}}
    (tmp_path / "direct").mkdir()
    direct = quantise(model(), dataset(), tmp_path / "direct", **moved)
    later = start(whole, "float", tmp_path, remaining("float", moved))
    assert content(later) == content(direct) != content(whole)
    assert load(later.folder / "checkpoints/fake_quantised.pt").origin.mapping.layers == {}


def test_what_a_later_checkpoint_has_settled_can_be_left_out(whole: Outcome, tmp_path: Path) -> None:
    spec = remaining("hardware_mapped")
    del spec["mapping"], spec["recipe"]["quantisers"]
    later = start(whole, "hardware_mapped", tmp_path, spec)
    assert content(later) == content(whole)
    assert any("mapping is that of the checkpoint" in note and "second" in note for note in later.report["notes"])
    assert any("recipe.quantisers is that of the checkpoint" in note for note in later.report["notes"])
    kept = load(later.folder / "checkpoints/hardware_exact.pt").origin
    assert kept == load(whole.folder / "checkpoints/hardware_exact.pt").origin


def test_the_model_file_is_not_needed(whole: Outcome, tmp_path: Path) -> None:
    later = start(whole, "fake_quantised", tmp_path, remaining("fake_quantised"), with_model=False)
    for name in ("htvm/model.onnx", "checkpoints/hardware_exact.pt"):
        assert content(later, name) == content(whole, name)


def test_editors_of_what_is_left_out_are_refused(whole: Outcome, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **dataset())
    spec = {**remaining("hardware_mapped"), "start_from": f"{whole.folder}/hardware_mapped"}
    wanted = "'float': start_from leaves it out; there are hardware_exact, integerise, export, verify"
    with pytest.raises(InvalidSpec, match=wanted):
        notebook.quantise(
            whole.folder.parent / "model.onnx", tmp_path / "data.npz", tmp_path / "out", editors={"float": []}, **spec
        )
    assert not (tmp_path / "out").exists()


def test_another_preprocessing_is_told(whole: Outcome, tmp_path: Path) -> None:
    spec = merge(remaining("hardware_exact"), {"preprocessing": {"mean": [0.3]}})
    notes = start(whole, "hardware_exact", tmp_path, spec).report["notes"]
    assert any("mean (0.3,)" in note and "was made with" in note and "mean (0.4,)" in note for note in notes)


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A job for pixels that trains all iterations."""
    return quantise(model(), dataset(), tmp_path_factory.mktemp("fed"), **FED)


FED = merge(SPEC, {"interface": {"input": "pixels"}})


@pytest.mark.parametrize("iteration", ["float", "fake_quantised", "hardware_exact"])
def test_a_job_for_pixels_goes_on_as_one(fed: Outcome, tmp_path: Path, iteration: str) -> None:
    later = start(fed, iteration, tmp_path, remaining(iteration, FED))
    for name in ("htvm/model.onnx", "htvm/input.npy", "dory/model.onnx"):
        assert content(later, name) == content(fed, name)
    if iteration == "fake_quantised":
        origin = "checkpoints/hardware_exact.pt"
        assert load(later.folder / origin).origin.pixels is load(fed.folder / origin).origin.pixels is True


def test_after_float_another_input_can_be_chosen(whole: Outcome, fed: Outcome, tmp_path: Path) -> None:
    later = start(whole, "float", tmp_path, remaining("float", FED))
    assert content(later) == content(fed) != content(whole)


def test_what_is_fed_is_settled_later(whole: Outcome, fed: Outcome, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"'pixels', but .* after hardware_mapped takes 'float' or 'int8'") as caught:
        start(whole, "hardware_mapped", tmp_path, remaining("hardware_mapped", FED))
    assert caught.value.param == "interface.input"
    with pytest.raises(InvalidSpec, match=r"'float', but .* after hardware_mapped takes 'pixels'"):
        start(fed, "hardware_mapped", tmp_path, remaining("hardware_mapped"))
    moved = merge(FED, {"preprocessing": {"mean": [0.3]}})
    with pytest.raises(InvalidSpec, match=r"mean \(0.3,\).*is part of its first layer.*mean \(0.4,\)"):
        start(fed, "hardware_mapped", tmp_path, remaining("hardware_mapped", moved))
    integers = merge(SPEC, {"interface": {"input": "int8", "output": "int8"}})
    later = start(whole, "hardware_mapped", tmp_path, remaining("hardware_mapped", integers))
    assert content(later, "dory/model.onnx") == content(whole, "dory/model.onnx")


def pixels() -> dict[str, np.ndarray]:
    return dataset((6, 6, 3))


@pytest.mark.parametrize(
    ("error", "change", "match"),
    [
        (InvalidSpec, {"network": model(4)}, r"the job's model file has the sha256 \w+, but .* from one with sha256"),
        (
            InvalidSpec,
            {"spec": {"model": {**ZOO, "weights": "w"}}},
            "network is architecture resnet8, .*the checkpoint's is none of the zoo",
        ),
        (InvalidSpec, {"spec": {"task": "reconstruction"}}, "classification network, the job's task is reconstruction"),
        (InvalidSpec, {"spec": {"mapping": {"layers": {"second": "digital"}}}}, "mapping differs.*'second': 'analog'"),
        (InvalidSpec, {"spec": {"recipe": {"quantisers": {"activations": {"function": "pact"}}}}}, "recipe.quantisers"),
        (InvalidDataset, {"arrays": pixels()}, r"\(6, 6, 3\) do not fit the model's input of shape \(3, 5, 5\)"),
        (InvalidDataset, {"arrays": {**dataset(), "y_test": np.full(20, 3)}}, "the model has 3 classes"),
    ],
    ids=["model", "zoo", "task", "mapping", "quantisers", "shape", "labels"],
)
def test_a_job_that_does_not_fit_is_refused(
    whole: Outcome, tmp_path: Path, error: type[Exception], change: dict[str, Any], match: str
) -> None:
    spec = merge(remaining("hardware_mapped"), change.get("spec", {}))
    with pytest.raises(error, match=match):
        start(whole, "hardware_mapped", tmp_path, spec, **{k: v for k, v in change.items() if k != "spec"})
    assert not (tmp_path / "bundle").exists()


def test_a_missing_checkpoint_is_refused(whole: Outcome, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"double\.pt cannot be read: No such file"):
        start(whole, "double", tmp_path, SPEC)


def test_a_zoo_network_goes_on_as_itself_alone(tmp_path: Path) -> None:
    job = JobSpec.model_validate({"model": ZOO, "dataset": "d", "recipe": {"float": {"epochs": 1}}})
    weights = tmp_path / "weights"
    weights.write_bytes(b"w")
    made = Checkpoint("float", imported(model()), imported(model()), origin_of(job, (3, 5, 5), weights), {})
    found = DatasetInfo(splits={"train": SplitInfo(samples=9, sample_shape=(5, 5, 3), dtype="uint8")})
    record_shapes(made.teacher, (3, 5, 5))
    for same in ({}, {"weights": "renamed"}):
        check_start(made, child(**same), weights if same else None, found)
    with pytest.raises(InvalidSpec, match=r"architecture resnet20, .*the checkpoint's is architecture resnet8"):
        check_start(made, child(architecture="resnet20"), None, found)
    weights.write_bytes(b"other")
    with pytest.raises(InvalidSpec, match="sha256"):
        check_start(made, child(weights="weights"), weights, found)


def child(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({"model": {**ZOO, **changes}, "dataset": "d", "start_from": "parent/float"})
