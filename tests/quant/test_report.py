"""`report.json` of whole jobs: what its schema promises, and that its page and README say the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import BaseModel
from schemas import admits

from dianaq.schemas.report import JobReport, read_report, report_schema
from dianaq.schemas.spec import JobSpec
from dianaq_quant import pipeline
from dianaq_quant.bundle.bundle_files import MADE_LAST, described, purpose
from dianaq_quant.profile.warnings import warnings_of

from .builder import ModelBuilder
from .support import Outcome, quantise

SAMPLES = 64
EPOCH = {"epochs": 1, "learning_rate": 0.01, "batch_size": 16}


def model(softmax: bool = False) -> onnx.ModelProto:
    b = ModelBuilder((3, 6, 6), seed=3)
    y = b.relu(b.batch_norm(b.conv(b.input, 4, pads=(1, 1, 1, 1), bias=False, name="stage/first.conv")))
    y = b.relu(b.add(b.batch_norm(b.conv(y, 4, pads=(1, 1, 1, 1), bias=False, name="second")), y, name="sum"))
    y = b.gemm(b.flatten(b.global_pool(y, name="pool"), name="flat"), 3, name="head")
    return b.build(b.node("Softmax", [y], y.shape, "probabilities", axis=1) if softmax else y)


def dataset() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, SAMPLES)
    x = random.integers(0, 256, (SAMPLES, 6, 6, 3)).astype(np.uint8)
    return {"x_train": x, "y_train": y, "x_test": x[:20], "y_test": y[:20]}


def digital(folder: Path) -> Outcome:
    return quantise(model(), dataset(), folder, recipe={"preset": "ptq"})


def mixed(folder: Path) -> Outcome:
    recipe = {
        "float": EPOCH,
        "fake_quantised": {**EPOCH, "distillation": 0.5},
        "hardware_exact": EPOCH,
        "noise_sweep": {"gaussian": [0.0, 0.5], "draws": 2},
    }
    return quantise(model(softmax=True), dataset(), folder, recipe=recipe, mapping={"layers": {"second": "analog"}})


def reconstruction(folder: Path) -> Outcome:
    b = ModelBuilder((16,), seed=3)
    y = b.gemm(b.relu(b.batch_norm(b.gemm(b.input, 8, name="narrow"))), 16, name="wide")
    x = np.random.default_rng(0).integers(0, 256, (60, 4, 4)).astype(np.uint8)
    arrays = {"x_train": x, "x_test": x[:20], "y_test": np.arange(20) % 2}
    return quantise(b.build(y), arrays, folder, task="reconstruction", recipe={"float": {**EPOCH, "epochs": 2}})


def unlabelled(folder: Path) -> Outcome:
    return quantise(model(), {"x_train": dataset()["x_train"][:20]}, folder, recipe={"preset": "ptq"})


def started(iteration: str) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        (folder / "parent").mkdir()
        parent = digital(folder / "parent")
        outcome = Outcome(folder / "bundle")
        pipeline.run(
            JobSpec.model_validate({"model": "model.onnx", "dataset": "data.npz"}),
            model_path=folder / "parent" / "model.onnx",
            dataset_path=folder / "parent" / "data.npz",
            out_dir=outcome.folder,
            emit=outcome.events.append,
            start_from=parent.folder / "checkpoints" / f"{iteration}.pt",
        )
        return outcome

    return run


JOBS: dict[str, Callable[[Path], Outcome]] = {
    "digital": digital,
    "mixed": mixed,
    "reconstruction": reconstruction,
    "unlabelled": unlabelled,
    "from float": started("float"),
    "from hardware_exact": started("hardware_exact"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return {name: run(tmp_path_factory.mktemp("job")) for name, run in JOBS.items()}


@pytest.fixture(params=list(JOBS))
def outcome(request: pytest.FixtureRequest, outcomes: dict[str, Outcome]) -> Outcome:
    return outcomes[request.param]


def undeclared(part: Any, where: str = "report") -> Iterator[str]:
    """Fields of a report that its models do not know. `Epoch` is open: its figures have the task's names."""
    if isinstance(part, BaseModel):
        if type(part).__name__ != "Epoch":
            yield from (f"{where}.{name}" for name in part.__pydantic_extra__ or {})
        for name in type(part).model_fields:
            yield from undeclared(getattr(part, name), f"{where}.{name}")
    elif isinstance(part, list | tuple):
        for entry in part:
            yield from undeclared(entry, f"{where}[]")


def test_the_file_is_what_the_schema_promises(outcome: Outcome) -> None:
    schema = report_schema()
    assert admits(schema, outcome.report, schema["$defs"])
    assert list(undeclared(read_report(outcome.folder))) == []
    assert read_report(outcome.folder).model_dump(mode="json", exclude_unset=True) == outcome.report


@pytest.mark.parametrize(
    "damage",
    [
        {"cost": {"macs": "many"}},
        {"layers": [{"name": "x"}]},
        {"seed": None},
        {"training": [{"stage": "float", "epoch": 1, "loss": "low"}]},
        {"accuracy": [{"stage": "floating", "split": "test", "samples": 1}]},
    ],
)
def test_the_schema_and_the_models_refuse_alike(outcomes: dict[str, Outcome], damage: dict[str, Any]) -> None:
    schema, damaged = report_schema(), outcomes["mixed"].report | damage
    assert not admits(schema, damaged, schema["$defs"])
    with pytest.raises(ValueError, match=next(iter(damage))):
        JobReport.model_validate(damaged)


def test_every_layer_has_its_figures(outcome: Outcome) -> None:
    report = read_report(outcome.folder)
    first, *layers = report.layers
    assert (first.name, first.operation) == ("input", "quantise")
    assert report.sqnr is not None
    for layer in layers:
        assert layer.original
        assert layer.inputs
        assert layer.scale is not None
        assert layer.range is not None
        assert layer.sqnr_db is not None
        assert math.isfinite(layer.sqnr_db)
        assert (layer.cycles or 0) > 0 or layer.operation in ("Add", "GlobalAvgPool2d", "Flatten")
        assert layer.live_bytes
        if layer.scale_log2 is not None:
            assert layer.scale == 2.0**layer.scale_log2
        if layer.weights is not None:
            assert sum(layer.weights.counts) == math.prod(layer.weight_shape or [])
            assert layer.weights.lo == (layer.weight_range or (0, 0))[0]
    cost, memory = report.cost, report.memory
    assert cost is not None
    assert memory is not None
    assert cost.energy_j == pytest.approx(sum(layer.energy_j or 0 for layer in layers))
    assert cost.latency_s == pytest.approx(sum(layer.latency_s or 0 for layer in layers))
    assert memory.peak_activation_bytes == max(layer.live_bytes or 0 for layer in layers)
    assert memory.weight_bytes == sum(layer.weight_bytes or 0 for layer in layers)


def test_costs_are_told_as_each_compiler_gets_the_network(outcomes: dict[str, Outcome]) -> None:
    report = read_report(outcomes["digital"].folder)
    assert set(report.deployed) == {"htvm", "dory"}
    for found in report.deployed.values():
        assert report.cost is not None
        assert report.memory is not None
        assert found.cost.macs >= report.cost.macs
        assert found.memory.total_bytes >= report.memory.total_bytes


def test_what_passes_through_keeps_its_scale_and_shapes(outcomes: dict[str, Outcome]) -> None:
    layers = {layer.original: layer for layer in read_report(outcomes["digital"].folder).layers}
    assert layers["pool"].scale == layers["flat"].scale == layers["sum"].scale == layers["head"].input_scale
    assert layers["pool"].range == layers["flat"].range == (0, 127)
    assert layers["sum"].input_shapes == [[4, 6, 6], [4, 6, 6]]
    assert layers["pool"].input_shapes == [[4, 6, 6]]
    assert (layers["flat"].input_shapes, layers["flat"].shape) == ([[4, 1, 1]], [4])


def test_an_8_bit_network_keeps_its_signal(outcomes: dict[str, Outcome]) -> None:
    layers = read_report(outcomes["digital"].folder).layers
    assert min(layer.sqnr_db for layer in layers if layer.sqnr_db is not None) > 15


def test_what_signals_are_compared_with_is_said(outcomes: dict[str, Outcome]) -> None:
    for name, words in (("digital", "folded"), ("mixed", "without rounding"), ("from hardware_exact", "without")):
        sqnr = read_report(outcomes[name].folder).sqnr
        assert sqnr is not None
        assert words in sqnr.reference
        assert sqnr.samples == min(SAMPLES, outcomes[name].report["samples"]["calibration"])


@pytest.mark.parametrize("dialect", ["htvm", "dory"])
def test_exported_tensors_lead_back_to_the_users_layers(outcomes: dict[str, Outcome], dialect: str) -> None:
    outcome = outcomes["mixed"]
    tensors = next(found for file, found in read_report(outcome.folder).tensors.items() if file.startswith(dialect))
    graph = onnx.load(str(outcome.folder / dialect / "model.onnx")).graph
    known = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    assert set(tensors) <= known
    assert set(tensors.values()) >= {"stage/first.conv", "second", "sum", "pool", "flat", "head"}
    summed = [node.op_type for node in graph.node if tensors.get(node.output[0]) == "sum"]
    assert summed[-1] == "Clip"  # its ReLU comes last


def test_saturated_weights_are_those_of_the_recipes_range(tmp_path: Path) -> None:
    quantisers = {"weights": {"range": {"bitwidth": 3, "signed": True}}}
    outcome = quantise(model(), {"x_train": dataset()["x_train"][:20]}, tmp_path, recipe={"quantisers": quantisers})
    for layer in read_report(outcome.folder).layers:
        if layer.weights is not None:
            assert layer.weights.saturated is not None
            ends = {-4: layer.weights.counts[0], 3: layer.weights.counts[-1]}
            lo, hi = layer.weight_range or (0, 0)
            reached = sum(count for end, count in ends.items() if end in (lo, hi))
            assert layer.weights.saturated == pytest.approx(reached / sum(layer.weights.counts), abs=1e-6)
            assert layer.weights.saturated > 0


GOOD = [
    {"stage": "float", "split": "test", "samples": 1000, "top1": 0.9},
    {"stage": "integerise", "split": "test", "samples": 1000, "top1": 0.895},
]


def dropped(**figures: float) -> list[dict[str, Any]]:
    return [GOOD[0], GOOD[1] | figures]


@pytest.mark.parametrize(
    ("accuracy", "layers", "exceeded", "words"),
    [
        (GOOD, [{"name": "a", "float32_exact": True}], [], None),
        ([], [], None, "no labels"),
        (dropped(top1=0.89), [], None, None),
        (dropped(top1=0.888), [], None, "accuracy goes from 90.00% (float) to 88.80%"),
        ([{**GOOD[0], "mse": 1.0}, {**GOOD[1], "mse": 1.2}], [], None, "MSE goes from 1.000 (float) to 1.200"),
        ([{**GOOD[0], "mse": 1.0}, {**GOOD[1], "mse": 1.05}], [], None, None),
        ([{**GOOD[0], "samples": 499}, {**GOOD[1], "samples": 499}], [], None, "499 samples"),
        ([GOOD[0], {**GOOD[1], "split": "val"}], [], None, "validation data"),
        (GOOD, [{"name": "a", "float32_exact": False}], None, "a: accumulators"),
        (
            GOOD,
            [],
            [{"layer": None, "memory": "l2", "bytes": 600_000, "limit": 512_000}],
            "htvm: weights and activations need 600,000 bytes, more than the 512,000",
        ),
        (GOOD, [], [{"layer": "a", "memory": "l1_soc", "bytes": 130_000, "limit": 128_000}], None),
        (
            GOOD,
            [],
            [{"layer": "a", "memory": "l1_tvm", "bytes": 260_000, "limit": 256_000}],
            "a need up to 260,000 bytes",
        ),
        (
            GOOD,
            [],
            [
                {"layer": "a", "memory": "digital_weights", "bytes": 70_000, "limit": 65_536},
                {"layer": "b", "memory": "digital_weights", "bytes": 90_000, "limit": 65_536},
            ],
            "htvm: a, b need up to 90,000 bytes",
        ),
    ],
)
def test_warnings(
    accuracy: list[dict[str, Any]],
    layers: list[dict[str, Any]],
    exceeded: list[dict[str, Any]] | None,
    words: str | None,
) -> None:
    found = warnings_of(accuracy, layers, {"htvm": {"memory": {"exceeded": exceeded or []}}}, {})
    assert len(found) == (words is not None)
    assert all(words in line for line in found if words)


def test_rules_that_keep_a_file_from_its_chip_are_warnings() -> None:
    severities = {"a": "wrong", "b": "wrong", "c": "cpu", "d": "note", "e": "rejected"}
    findings = [{"rule": rule, "severity": severity} for rule, severity in severities.items()]
    found = warnings_of(GOOD, [], {}, {"htvm": [*findings, findings[0]], "dory": findings[2:4]})
    assert found == [
        "htvm/model.onnx: its compiler refuses it, by e",
        "htvm/model.onnx: its compiler takes it, and the chip computes something else, by a, b",
    ]


def test_warnings_of_a_job_are_in_the_report_and_the_readme(outcomes: dict[str, Outcome]) -> None:
    for name, words in (("unlabelled", "no labels"), ("mixed", "20 samples")):
        outcome = outcomes[name]
        assert any(words in line for line in outcome.report["warnings"])
        assert words in (outcome.folder / "README.md").read_text()


def test_the_readme_names_every_file_and_how_to_hand_them_on(outcome: Outcome) -> None:
    text = (outcome.folder / "README.md").read_text()
    files = [p.relative_to(outcome.folder).as_posix() for p in outcome.folder.rglob("*") if p.is_file()]
    for path in files:
        if path != "bundle.zip":
            assert purpose(path), path
    for pattern in described(files):
        assert f"| `{pattern}` |" in text
    assert "python -m dianaq.run htvm/model.onnx htvm/input.npy" in text
    assert "python network_generate.py Quantlab Diana.Diana_SoC" in text
    assert "driver.py --onnx <bundle>/htvm/model.onnx" in text
    assert ("--boot_analog" in text) == any(layer.get("core") == "analog" for layer in outcome.report["layers"])
    assert "DORY_Relu_node" in text
    assert "What cannot be verified off the chip" in text
    assert f"{outcome.report['memory']['weight_bytes']:,} bytes of weights" in text


def test_only_files_that_are_there_are_described() -> None:
    assert set(described(["htvm/model.onnx"])) == {"htvm/model.onnx", *MADE_LAST}
    assert "golden/*" in described(["golden/conv.npy"])
    assert purpose("something/else") == ""


def test_page_and_report_are_members_of_the_bundle(outcome: Outcome) -> None:
    manifest = json.loads((outcome.folder / "manifest.json").read_text())
    assert {"report.html", "report.json", "README.md"} <= set(manifest["files"])
