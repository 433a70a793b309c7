"""One job from float network to verified bundle: a plain list of stages that each take the state and change it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn

from dianaq.cores import NoiseSweep
from dianaq.errors import InvalidSpec, JobCancelled
from dianaq.events import EventBody, Iteration, LogBody, MetricsBody, Stage, StageBody
from dianaq.inspection import check_interface, inspect_dataset
from dianaq.ranges import QRange
from dianaq.spec import JobSpec, Training
from dianaq_quant.bundle import new_bundle, sha256
from dianaq_quant.checkpoint import Checkpoint, load, save
from dianaq_quant.editors import canonicalise, fake_quantise, hardware, integerise
from dianaq_quant.editors.hardware.plan import plan_scales
from dianaq_quant.export import export_dory, export_htvm
from dianaq_quant.export.dory import DoryModel
from dianaq_quant.export.htvm import HtvmModel
from dianaq_quant.export.layers import IntegerNetwork, limits_of_dialects, read_layers, run_recording
from dianaq_quant.graph import Editor, run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import calls, core_of
from dianaq_quant.importers import import_network, interface_of
from dianaq_quant.modules.adc import converters, disturb, silence
from dianaq_quant.modules.exact import ExactAdd, ExactAnalogConv2d, ExactConv2d, ExactLinear, Requantisation
from dianaq_quant.readme import bundle_readme
from dianaq_quant.report import Report, describe_layers
from dianaq_quant.starting import check_start, origin_of
from dianaq_quant.targets.diana import TERNARY
from dianaq_quant.training.calibrate import calibrate, correct_biases, observe
from dianaq_quant.training.calibrate_analog import calibrate_analog
from dianaq_quant.training.data import Data, load_data
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.loop import train
from dianaq_quant.training.noise_sweep import noise_sweep
from dianaq_quant.training.rounding import round_weights
from dianaq_quant.training.tasks import TASKS
from dianaq_quant.verify import DATA_SAMPLES, Verification, sample_inputs, verify


@dataclass
class State:
    """What the stages hand on. `network` is the present network; each stage says what it has become."""

    spec: JobSpec
    model_path: Path | None
    module: nn.Module | None
    dataset_path: Path
    folder: Path
    emit: Callable[[EventBody], None]
    should_stop: Callable[[], bool]
    report: Report
    network: fx.GraphModule
    editors: Mapping[Stage, Sequence[Editor]]
    input_shape: tuple[int, ...]
    data: Data | None = None
    teacher: fx.GraphModule | None = None
    start: Checkpoint | None = None
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
    spec, found = state.spec, inspect_dataset(state.dataset_path)
    made = state.module is not None  # what is made in Python can be looked at only once it is imported
    if not made:
        check_interface(spec, interface_of(spec, state.model_path, None), found)
    imported = import_network(spec, state.model_path, state.module, state.input_shape)
    if made:
        check_interface(spec, interface_of(spec, None, imported), found)
    state.network, state.input_shape = imported.graph, imported.input_shape
    state.report.add_edits("import", imported.edits)
    for note in imported.notes:
        _note(state, note)
    _load(state)


def _load(state: State) -> None:
    """Load the dataset for the network's input."""
    state.data = load_data(state.dataset_path, state.spec, state.input_shape)
    splits = {"train": state.data.train, "val": state.data.val, "test": state.data.test}
    state.report.samples = {name: len(split) for name, split in splits.items() if split is not None}
    state.report.samples["calibration"] = len(state.data.calibration)


def canonicalise_(state: State) -> None:
    """The canonical float network."""
    record_shapes(state.network, state.input_shape)
    _edit(state, "canonicalise", canonicalise.EDITORS)
    record_shapes(state.network, state.input_shape)
    _assign(state)


def float_(state: State) -> None:
    """The float network, trained if the recipe says so."""
    _train(state, "float")
    state.teacher = copy.deepcopy(state.network).requires_grad_(False)


def fake_quantised(state: State) -> None:
    """Fake-quantised with the recipe's ranges: equalised, calibrated, trained if the recipe says so."""
    recipe = state.spec.recipe
    editors = fake_quantise.editors(recipe.quantisers, equalise=recipe.post_training.equalise)
    _edit(state, "fake_quantised", editors)
    calibrate(state.network, state.loaded.calibration, state.loaded.normalise)
    _train(state, "fake_quantised")


def hardware_mapped(state: State) -> None:
    """On the chip's two cores, with their integer ranges; step by step to ternary, if the recipe says so."""
    recipe, data = state.spec.recipe, state.loaded
    if _has_analog(state):
        observe(state.network, data.calibration, data.normalise)  # for the scales of what analog layers read
    for step in recipe.progressive:
        _map(state, step.range)
        _fit(state, "hardware_mapped", recipe.hardware_mapped.model_copy(update={"epochs": step.epochs}))
    _map(state, TERNARY)
    _train(state, "hardware_mapped")


def hardware_exact(state: State) -> None:
    """As the chip computes it: BatchNorm folded, power-of-two scales, weights rounded, biases corrected, integers."""
    recipe, data = state.spec.recipe, state.loaded
    _edit(state, "hardware_exact", hardware.FOLDING)
    observe(state.network, data.calibration, data.normalise)
    bits = state.spec.target.batch_norm_bits
    plan = plan_scales(state.network, input_steps=data.input_steps, batch_norm_bits=bits)
    for note in plan.notes:
        _note(state, note)
    reference = copy.deepcopy(state.network)
    _edit(state, "hardware_exact", hardware.exact_editors(plan, bits))
    if recipe.post_training.rounding == "error_feedback" and not recipe.hardware_exact.epochs:
        round_weights(state.network, data.calibration, data.normalise)
    if recipe.post_training.bias_correction:
        correct_biases(state.network, reference, data.calibration, data.normalise)
    _train(state, "hardware_exact")


def integerise_(state: State) -> None:
    """Integers only, after a last look at the exact network under noise; it is kept for the verification."""
    if state.spec.recipe.noise_sweep is not None:
        _sweep(state, state.spec.recipe.noise_sweep)
    exact = copy.deepcopy(state.network)
    state.scales = {
        str(node.target): module.requantise
        for node, module in calls(state.network, ExactConv2d, ExactLinear, ExactAnalogConv2d, ExactAdd)
        if isinstance(module, ExactConv2d | ExactLinear | ExactAnalogConv2d | ExactAdd)
    }
    _edit(state, "integerise", integerise.EDITORS)
    record_shapes(state.network, state.input_shape)
    state.integer = read_layers(state.network)
    _measure(state, "integerise")
    state.network = exact


def _sweep(state: State, sweep: NoiseSweep) -> None:
    """Measure the exact network under noise, if there is any to measure."""
    recipe, found = state.spec.recipe, state.loaded.report_split
    if found is None or not converters(state.network):
        why = "no layer runs on the analog core" if found else "the dataset has no labels"
        _note(state, f"no noise sweep: {why}")
        return
    arguments = (found[1], state.loaded.normalise, TASKS[state.spec.task], sweep, recipe.noise, recipe.seed)
    state.report.noise_sweep = noise_sweep(state.network, *arguments, should_stop=state.should_stop)


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
    for note in limits_of_dialects(state.integer):
        _note(state, note)


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
    model_path: Path | None,
    dataset_path: Path,
    out_dir: Path,
    emit: Callable[[EventBody], None],
    should_stop: Callable[[], bool] = lambda: False,
    start_from: Path | None = None,
    module: nn.Module | None = None,
    input_shape: tuple[int, ...] = (),
    editors: Mapping[Stage, Sequence[Editor]] | None = None,
) -> State:
    """Run a whole job and leave the bundle at `out_dir`, complete or not at all.

    Args:
        spec: the job; its `model` and `dataset` are names here, the files are given by path.
        model_path: the ONNX file, or the weights of a zoo network; None for one without weights.
        dataset_path: the uploaded data.
        out_dir: the bundle's folder; must not exist, or be empty.
        emit: receives what happens, in order.
        should_stop: polled between steps; true ends the job.
        start_from: the checkpoint that `spec.start_from` names; the stages up to its iteration are left out.
        module, input_shape: a network made in Python, in place of the file, and the shape of one sample of its input.
        editors: a user's own, which run before the stage's; none for `import`, before which there is no network.

    Returns:
        The state that the last stage left: the exact and the integer network, and the report.

    Raises:
        DianaqError: says what is wrong with the input, or which layer cannot be brought onto the chip.
        JobCancelled: `should_stop` turned true.
    """
    _check_editors(editors or {})
    torch.manual_seed(spec.recipe.seed)
    report = Report(spec)
    with new_bundle(out_dir, spec) as folder:
        empty = fx.GraphModule(torch.nn.Module(), fx.Graph())
        own = editors or {}
        state = State(
            spec, model_path, module, dataset_path, folder, emit, should_stop, report, empty, own, input_shape
        )
        for name, stage in STAGES if start_from is None else _start(state, start_from):
            if should_stop():
                raise JobCancelled(f"cancelled before {name}")
            emit(StageBody(stage=name, status="started"))
            start = time.monotonic()
            state.report.add_edits(name, run_editors(state.network, state.editors.get(name, ())))
            stage(state)
            report.timings[name] = time.monotonic() - start
            emit(StageBody(stage=name, status="finished", seconds=round(report.timings[name], 3)))
        (folder / "report.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
        (folder / "README.md").write_text(bundle_readme(report))
    return state


def _check_editors(editors: Mapping[Stage, Sequence[Editor]]) -> None:
    """Raises `InvalidSpec` for editors that would never run, or run on nothing."""
    known = [name for name, _ in STAGES if name != "import"]
    for stage in editors:
        if stage not in known:
            why = "before it there is no network" if stage == "import" else "there is no such stage"
            raise InvalidSpec(f"editors for {stage!r}: {why}; there are {', '.join(known)}", param=f"editors.{stage}")


def _start(state: State, path: Path) -> list[tuple[Stage, Callable[[State], None]]]:
    """Take a checkpoint's network up; the stages that are left.

    Cores are chosen between `float` and `fake_quantised`: a float network goes to those of this job.
    """
    start = load(path)
    for note in check_start(start, state.spec, state.model_path, inspect_dataset(state.dataset_path)):
        _note(state, note)
    state.start, state.network, state.teacher = start, start.network, start.teacher
    state.input_shape = start.origin.input_shape
    state.report.started_from = {"iteration": start.iteration, "sha256": sha256(path), "versions": start.versions}
    _load(state)
    if start.iteration == "float":
        _assign(state)
        state.teacher = copy.deepcopy(state.network).requires_grad_(False)
    return STAGES[[name for name, _ in STAGES].index(start.iteration) + 1 :]


def _assign(state: State) -> None:
    """Assign cores; refuse steps that no layer would take.

    Raises:
        InvalidSpec: an impossible mapping, or progressive steps without an analog layer.
    """
    _edit(state, "canonicalise", hardware.assignment(state.spec.mapping))
    if state.spec.recipe.progressive and not _has_analog(state):
        raise InvalidSpec(
            "recipe.progressive has steps for the weights of analog layers, and no layer runs on the analog core; "
            "set mapping, or leave it out",
            param="recipe.progressive",
        )


def _has_analog(state: State) -> bool:
    return any(core_of(node) == "analog" for node in state.network.graph.nodes)


def _edit(state: State, stage: Stage, editors: list[Editor]) -> None:
    state.report.add_edits(stage, run_editors(state.network, editors))


def _note(state: State, message: str) -> None:
    state.report.notes.append(message)
    state.emit(LogBody(message=message))


def _map(state: State, analog_weights: QRange) -> None:
    """Bring the network to the chip's ranges, the analog layers' weights to the given one."""
    data = state.loaded
    _edit(state, "hardware_mapped", hardware.mapping(analog_weights, data.input_steps))
    calibrate_analog(state.network, data.calibration, data.normalise)


def _train(state: State, iteration: Iteration) -> None:
    """Train an iteration as the recipe says, then measure it and keep its network."""
    _fit(state, iteration, state.spec.recipe.training(iteration))
    _measure(state, iteration)
    origin = origin_of(state.spec, state.input_shape, state.model_path, state.start)
    path = state.folder / "checkpoints" / f"{iteration}.pt"
    save(state.network, path, iteration=iteration, origin=origin, teacher=state.teacher)


def _fit(state: State, iteration: Iteration, settings: Training) -> None:
    """Train, with the recipe's noise in the converters of analog layers."""
    recipe = state.spec.recipe
    state.network.eval()
    if not recipe.noise.silent:
        disturb(state.network, recipe.noise, recipe.seed)

    def emit(body: EventBody) -> None:
        if isinstance(body, MetricsBody):
            state.report.add_epoch(body)
        state.emit(body)

    train(
        state.network,
        settings,
        state.loaded,
        task=TASKS[state.spec.task],
        teacher=state.teacher,
        iteration=iteration,
        seed=recipe.seed,
        emit=emit,
        should_stop=state.should_stop,
    )
    silence(state.network)


def _measure(state: State, stage: Stage) -> None:
    """Report the present network's figures, if there are data to measure them on."""
    found = state.loaded.report_split
    if found is None:
        return
    name, split = found
    measured = evaluate(state.network, split, state.loaded.normalise, TASKS[state.spec.task])
    state.report.add_accuracy(stage, name, measured)
    state.emit(MetricsBody(stage=stage, values=measured.named(name)))
