"""One job from float network to verified bundle: a plain list of stages that each take the state and change it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx

from dianaq.errors import JobCancelled
from dianaq.events import ITERATIONS, EventBody, Iteration, LogBody, MetricsBody, Stage, StageBody
from dianaq.inspection import check_fit, inspect_dataset, inspect_model
from dianaq.spec import JobSpec
from dianaq_quant.bundle import new_bundle
from dianaq_quant.editors import canonicalise, fake_quantise, hardware, integerise
from dianaq_quant.editors.hardware.plan import plan_scales
from dianaq_quant.export import export_dory, export_htvm
from dianaq_quant.export.dory import DoryModel
from dianaq_quant.export.htvm import HtvmModel
from dianaq_quant.export.layers import IntegerNetwork, read_layers, run_recording
from dianaq_quant.graph import Editor, run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import calls
from dianaq_quant.importers import import_onnx
from dianaq_quant.modules.exact import ExactAdd, ExactConv2d, ExactLinear, Requantisation
from dianaq_quant.readme import bundle_readme
from dianaq_quant.report import Report, describe_layers
from dianaq_quant.training.calibrate import calibrate, correct_biases, observe
from dianaq_quant.training.data import Data, load_data
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.loop import train
from dianaq_quant.training.rounding import round_weights
from dianaq_quant.verify import DATA_SAMPLES, Verification, sample_inputs, verify


@dataclass
class State:
    """What the stages hand on. `network` is the present network; each stage says what it has become."""

    spec: JobSpec
    model_path: Path
    dataset_path: Path
    folder: Path
    emit: Callable[[EventBody], None]
    should_stop: Callable[[], bool]
    report: Report
    network: fx.GraphModule
    input_shape: tuple[int, ...] = ()
    data: Data | None = None
    teacher: fx.GraphModule | None = None
    integer: IntegerNetwork | None = None
    scales: dict[str, float | Requantisation] | None = None
    files: tuple[HtvmModel, DoryModel] | None = None

    @property
    def loaded(self) -> Data:
        """The dataset; loaded by the first stage."""
        assert self.data is not None
        return self.data


def import_(state: State) -> None:
    """Inspect and read both files; the network is the imported one."""
    spec = state.spec
    check_fit(spec, inspect_model(state.model_path), inspect_dataset(state.dataset_path))
    imported = import_onnx(state.model_path)
    state.network, state.input_shape = imported.graph, imported.input_shape
    for note in imported.notes:
        _note(state, note)
    state.data = load_data(state.dataset_path, spec, state.input_shape)
    splits = {"train": state.data.train, "val": state.data.val, "test": state.data.test}
    state.report.samples = {name: len(split) for name, split in splits.items() if split is not None}
    state.report.samples["calibration"] = len(state.data.calibration)


def canonicalise_(state: State) -> None:
    """The canonical float network."""
    record_shapes(state.network, state.input_shape)
    _edit(state, "canonicalise", canonicalise.EDITORS)


def float_(state: State) -> None:
    """The float network, trained if the recipe says so."""
    _train(state, "float")
    if any(state.spec.recipe.training(i).distillation for i in ITERATIONS):
        state.teacher = copy.deepcopy(state.network).requires_grad_(False)


def fake_quantised(state: State) -> None:
    """Fake-quantised with the recipe's ranges: equalised, calibrated, trained if the recipe says so."""
    recipe = state.spec.recipe
    ranges = recipe.ranges
    editors = fake_quantise.editors(ranges.weights, ranges.activations, equalise=recipe.post_training.equalise)
    _edit(state, "fake_quantised", editors)
    calibrate(state.network, state.loaded.calibration, state.loaded.normalise, recipe.calibration)
    _train(state, "fake_quantised")


def hardware_mapped(state: State) -> None:
    """With the chip's integer ranges."""
    _edit(state, "hardware_mapped", hardware.MAPPING)
    _train(state, "hardware_mapped")


def hardware_exact(state: State) -> None:
    """As the chip computes it: BatchNorm folded, power-of-two scales, weights rounded, biases corrected, integers."""
    recipe, data = state.spec.recipe, state.loaded
    _edit(state, "hardware_exact", hardware.FOLDING)
    observe(state.network, data.calibration, data.normalise)
    plan = plan_scales(
        state.network,
        weights=recipe.calibration.weights,
        activations=recipe.calibration.activations,
        input_step=data.input_step,
    )
    for note in plan.notes:
        _note(state, note)
    reference = copy.deepcopy(state.network)
    _edit(state, "hardware_exact", hardware.exact_editors(plan))
    if recipe.post_training.rounding == "error_feedback" and not recipe.hardware_exact.epochs:
        round_weights(state.network, data.calibration, data.normalise)
    if recipe.post_training.bias_correction:
        correct_biases(state.network, reference, data.calibration, data.normalise)
    _train(state, "hardware_exact")


def integerise_(state: State) -> None:
    """Integers only. The exact network is kept for the verification."""
    exact = copy.deepcopy(state.network)
    state.scales = {
        str(node.target): module.requantise
        for node, module in calls(state.network, ExactConv2d, ExactLinear, ExactAdd)
        if isinstance(module, ExactConv2d | ExactLinear | ExactAdd)
    }
    _edit(state, "integerise", integerise.EDITORS)
    record_shapes(state.network, state.input_shape)
    state.integer = read_layers(state.network)
    _measure(state, "integerise")
    state.network = exact


def export(state: State) -> None:
    """Both dialects, with golden vectors of the first calibration sample."""
    assert state.integer is not None
    assert state.scales is not None
    sample = state.loaded.normalise(state.loaded.calibration.x[:1])
    golden = run_recording(state.integer, sample)
    state.files = (
        export_htvm(state.integer, state.folder / "htvm", sample, golden["output"]),
        export_dory(state.integer, state.folder / "dory", golden),
    )
    state.report.layers = describe_layers(state.integer, state.scales)


def verify_(state: State) -> None:
    """All executions agree bit for bit, or the job fails."""
    assert state.integer is not None
    assert state.files is not None
    data = state.loaded
    _, split = data.report_split or ("calibration", data.calibration)
    x, real, random = sample_inputs(
        data.normalise(split.x[:DATA_SAMPLES]), state.integer.entrance.scale, state.spec.recipe.seed
    )
    executions = verify(state.integer, state.network, *state.files, x)
    state.report.add_verification(Verification(real, random, len(state.integer.layers) + 1, executions))


STAGES: list[tuple[Stage, Callable[[State], None]]] = [
    ("import", import_),
    ("canonicalise", canonicalise_),
    ("float", float_),
    ("fake_quantised", fake_quantised),
    ("hardware_mapped", hardware_mapped),
    ("hardware_exact", hardware_exact),
    ("integerise", integerise_),
    ("export", export),
    ("verify", verify_),
]


def run(
    spec: JobSpec,
    *,
    model_path: Path,
    dataset_path: Path,
    out_dir: Path,
    emit: Callable[[EventBody], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run a whole job and leave the bundle at `out_dir`, complete or not at all.

    Args:
        spec: the job; its `model` and `dataset` are names here, the files are given by path.
        model_path, dataset_path: the uploaded files.
        out_dir: the bundle's folder; must not exist, or be empty.
        emit: receives what happens, in order.
        should_stop: polled between steps; true ends the job.

    Raises:
        DianaqError: says what is wrong with the input, or which layer cannot be brought onto the chip.
        JobCancelled: `should_stop` turned true.
    """
    torch.manual_seed(spec.recipe.seed)
    report = Report(spec)
    with new_bundle(out_dir, spec) as folder:
        empty = fx.GraphModule(torch.nn.Module(), fx.Graph())
        state = State(spec, model_path, dataset_path, folder, emit, should_stop, report, empty)
        for name, stage in STAGES:
            if should_stop():
                raise JobCancelled(f"cancelled before {name}")
            emit(StageBody(stage=name, status="started"))
            start = time.monotonic()
            stage(state)
            report.timings[name] = time.monotonic() - start
            emit(StageBody(stage=name, status="finished", seconds=round(report.timings[name], 3)))
        (folder / "report.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
        (folder / "README.md").write_text(bundle_readme(report))


def _edit(state: State, stage: Stage, editors: list[Editor]) -> None:
    state.report.add_edits(stage, run_editors(state.network, editors))


def _note(state: State, message: str) -> None:
    state.report.notes.append(message)
    state.emit(LogBody(message=message))


def _train(state: State, iteration: Iteration) -> None:
    """Train an iteration as the recipe says, then measure it."""
    state.network.eval()

    def emit(body: EventBody) -> None:
        if isinstance(body, MetricsBody):
            state.report.add_epoch(body)
        state.emit(body)

    train(
        state.network,
        state.spec.recipe.training(iteration),
        state.loaded,
        teacher=state.teacher,
        iteration=iteration,
        seed=state.spec.recipe.seed,
        emit=emit,
        should_stop=state.should_stop,
    )
    _measure(state, iteration)


def _measure(state: State, stage: Stage) -> None:
    """Report the present network's accuracy, if there are labels to measure it on."""
    found = state.loaded.report_split
    if found is None:
        return
    name, split = found
    measured = evaluate(state.network, split, state.loaded.normalise)
    state.report.add_accuracy(stage, name, measured)
    values = {f"accuracy_{name}": measured.top1, f"loss_{name}": measured.loss}
    state.emit(MetricsBody(stage=stage, values=values))
