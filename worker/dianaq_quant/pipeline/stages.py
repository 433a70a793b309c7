"""The stages of a job, as a plain list (`STAGES`); each takes the state and changes it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import fx

from dianaq.errors import InvalidSpec
from dianaq.inspection import check_interface, inspect_dataset
from dianaq.inspection.fit_names import check_rules
from dianaq.schemas.cores import NoiseSweep
from dianaq.schemas.events import ITERATIONS, EventBody, Iteration, LogBody, MetricsBody, Stage
from dianaq.schemas.ranges import QRange
from dianaq.schemas.recipe import Training
from dianaq_quant.checkpoint import save
from dianaq_quant.contracts import breaches, check_contracts
from dianaq_quant.editors import canonicalise, deploy, fake_quantise, hardware, integerise
from dianaq_quant.editors.hardware.plan import plan_scales
from dianaq_quant.export import export_dory, export_htvm, write_golden
from dianaq_quant.export.layers import IntegerNetwork, limits_of_dialects, read_layers, run_recording
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import calls, core_of
from dianaq_quant.importers import Wishes, import_network, interface_of
from dianaq_quant.interface import border_note, check_pixels, coarse_note, describe_interface
from dianaq_quant.modules.adc import converters, disturb, silence
from dianaq_quant.modules.exact import ExactAdd, ExactAnalogConv2d, ExactConv2d, ExactLinear
from dianaq_quant.pipeline.starting import origin_of
from dianaq_quant.pipeline.state import State
from dianaq_quant.profile.fidelity import fidelity
from dianaq_quant.profile.substitution import substitution_cost
from dianaq_quant.targets.diana import TERNARY
from dianaq_quant.training.calibrate import calibrate, correct_biases, forget, observe
from dianaq_quant.training.calibrate_analog import calibrate_analog
from dianaq_quant.training.curves import EVENTS
from dianaq_quant.training.device import placed
from dianaq_quant.training.loop import train
from dianaq_quant.training.noise_sweep import noise_sweep
from dianaq_quant.training.rounding import round_weights
from dianaq_quant.training.tasks import TASKS
from dianaq_quant.training.trace import trace_step
from dianaq_quant.verify import DATA_SAMPLES, Verification, sample_inputs, verify


def import_(state: State) -> None:
    """Inspect and read both files; the network is the imported one."""
    spec, found = state.spec, inspect_dataset(state.dataset_path)
    made = state.module is not None  # what is made in Python can be looked at only once it is imported
    if not made:
        takes = interface_of(spec, state.model_path, None, state.operators.handlers)
        if state.editors.get("import"):  # which may bring away what the job does not substitute
            takes = replace(takes, substitutable={}, final=None)
        check_interface(spec, takes, found)
    wishes = Wishes.of(spec, state.operators, state.editors.get("import", ()))
    imported = import_network(spec, state.model_path, state.module, state.input_shape, wishes)
    takes = interface_of(spec, None, imported)
    if made:
        check_interface(spec, takes, found)
    else:
        check_rules(spec, takes.nodes or ())
    state.network, state.input_shape, state.own = imported.graph, imported.input_shape, imported.own
    state.given, state.original = imported.given, imported.original
    state.report.add_edits("import", imported.edits)
    for note in imported.notes:
        state.note(note)
    state.load(found)


def canonicalise_(state: State) -> None:
    """The canonical float network."""
    record_shapes(state.network, state.input_shape)
    state.edit("canonicalise", canonicalise.EDITORS)
    record_shapes(state.network, state.input_shape)
    assign(state)


def float_(state: State) -> None:
    """The float network, trained if the recipe says so; the teacher of the others.

    Where activations were substituted, the network as it was before is the teacher: what is wanted is what it gives.
    """
    if state.original is not None:
        _compare_substituted(state, state.original)
        state.teacher = state.original  # which an imitation is measured by from here on
    _train(state, "float")
    state.teacher = state.original or copy.deepcopy(state.network).requires_grad_(False)


def _compare_substituted(state: State, original: fx.GraphModule) -> None:
    """Report what the substitution costs by itself, before anything is trained."""
    record_shapes(original, state.input_shape)
    with placed(state.device, original, state.network):
        cost = substitution_cost(original, state.network, state.data_on_device, TASKS[state.spec.task])
    trained = [name for name in ITERATIONS if state.spec.recipe.epochs(name)]
    state.report.substitution = cost.as_json() | {"by": dict(state.spec.substitute), "trained": trained}
    message = f"substituted activations make another network of it: {cost.sentence()}"
    if trained:
        state.note(f"{message}; trained afterwards: {', '.join(trained)}")
    else:
        state.warn(f"{message}; nothing is trained afterwards, which a qat preset or recipe.float.epochs would")


def fake_quantised(state: State) -> None:
    """Fake-quantised with the recipe's ranges: equalised, calibrated, trained if the recipe says so."""
    recipe, pixels = state.spec.recipe, state.loaded.pixels
    if pixels is not None and (note := border_note(state.network, pixels)):
        state.note(note)
    editors = fake_quantise.editors(recipe.quantisers, equalise=recipe.post_training.equalise, pixels=pixels)
    state.edit("fake_quantised", editors)
    calibrate(state.network, state.loaded.calibration, state.loaded.normalise)
    _train(state, "fake_quantised")


def hardware_mapped(state: State) -> None:
    """On the chip's two cores, with their integer ranges; step by step to ternary, if the recipe says so."""
    recipe, data = state.spec.recipe, state.loaded
    if _has_analog(state):
        observe(state.network, data.calibration, data.normalise)  # for the scales of what analog layers read
    for number, step in enumerate(recipe.progressive, 1):
        _map(state, step.range)
        settings = recipe.hardware_mapped.model_copy(update={"epochs": step.epochs})
        _fit(state, f"hardware_mapped-{number}", "hardware_mapped", settings)
    _map(state, TERNARY)
    forget(state.network)
    _train(state, "hardware_mapped")


def hardware_exact(state: State) -> None:
    """As the chip computes it: BatchNorm folded, power-of-two scales, weights rounded, biases corrected, integers."""
    recipe, data = state.spec.recipe, state.loaded
    state.edit("hardware_exact", hardware.FOLDING)
    observe(state.network, data.calibration, data.normalise)
    bits = state.spec.target.batch_norm_bits
    plan = plan_scales(state.network, input_steps=data.input_steps, batch_norm_bits=bits)
    for note in plan.notes:
        state.note(note)
    reference = copy.deepcopy(state.network)
    state.edit("hardware_exact", hardware.exact_editors(plan, bits))
    barely_trained = not recipe.hardware_exact.epochs or recipe.hardware_exact.samples is not None
    if recipe.post_training.rounding == "error_feedback" and barely_trained:
        round_weights(state.network, data.calibration, data.normalise)
    if recipe.post_training.bias_correction:
        correct_biases(state.network, reference, data.calibration, data.normalise)
    _train(state, "hardware_exact")
    if not recipe.hardware_exact.epochs:  # else the network has moved away from the reference
        state.report.fidelity = fidelity(state.network, data.calibration, data.normalise, reference)


def integerise_(state: State) -> None:
    """Integers only, after a last look at the exact network under noise; it is kept for the verification."""
    if state.spec.recipe.noise_sweep is not None:
        _sweep(state, state.spec.recipe.noise_sweep)
    if state.report.fidelity is None:
        state.report.fidelity = fidelity(state.network, state.loaded.calibration, state.loaded.normalise)
    exact = copy.deepcopy(state.network)
    state.scales = {
        str(node.target): module.requantise
        for node, module in calls(state.network, ExactConv2d, ExactLinear, ExactAnalogConv2d, ExactAdd)
        if isinstance(module, ExactConv2d | ExactLinear | ExactAnalogConv2d | ExactAdd)
    }
    state.edit("integerise", integerise.EDITORS)
    record_shapes(state.network, state.input_shape)
    state.integer = read_layers(state.network, state.spec.interface)
    state.measure("integerise")
    state.network = exact


def _sweep(state: State, sweep: NoiseSweep) -> None:
    """Measure the exact network under noise, if there is any to measure."""
    recipe, found = state.spec.recipe, state.loaded.report_split
    if found is None or not converters(state.network):
        why = "no layer runs on the analog core" if found else "the dataset has no labels"
        state.note(f"no noise sweep: {why}")
        return
    arguments = (found[1], state.loaded.normalise, TASKS[state.spec.task], sweep, recipe.noise, recipe.seed)
    state.report.noise_sweep = noise_sweep(
        state.network, *arguments, should_stop=state.should_stop, teacher=state.teacher
    )


def export(state: State) -> None:
    """Both dialects, each after the remedies for its compiler, with golden vectors of the first calibration samples."""
    assert state.integer is not None
    assert state.scales is not None
    wanted = state.spec.golden.samples
    samples = state.loaded.normalise(state.loaded.calibration.take(wanted).x)
    htvm, dory = (_deploy(state, state.integer, dialect) for dialect in ("htvm", "dory"))
    recorded = run_recording(htvm, samples)
    fed, given = htvm.fed(samples, recorded), htvm.given(recorded)
    golden = run_recording(dory, samples)
    state.deployed = {"htvm": htvm, "dory": dory}
    state.files = (
        export_htvm(htvm, state.folder / "htvm", fed[:1], given[:1]),
        export_dory(dory, state.folder / "dory", {name: value[:1] for name, value in golden.items()}),
    )
    write_golden(dory, state.files[1].fused, state.folder / "golden", golden, fed, given)
    if len(samples) < wanted:
        state.note(f"golden.samples is {wanted}, and there are {len(samples)} calibration samples to take them from")
    weight_ranges = {
        str(node.target): module.weight_range
        for node, module in calls(state.network, ExactConv2d, ExactLinear)
        if isinstance(module, ExactConv2d | ExactLinear)
    }
    state.report.add_network(state.integer, state.scales, weight_ranges)
    for dialect, network in state.deployed.items():
        state.report.add_deployed(dialect, network)
    by_htvm, by_dory = state.files
    state.report.tensors = {"htvm/model.onnx": by_htvm.originals, "dory/model.onnx": by_dory.originals}
    state.report.interface = describe_interface(
        state.integer, state.loaded.normalise, state.deployed, state.own, state.given
    )
    coarse = state.report.labels and coarse_note(state.integer, state.report.labels["std"])
    if coarse:
        state.note(coarse)
    for note in limits_of_dialects(state.integer):
        state.note(note)


def _deploy(state: State, network: IntegerNetwork, dialect: deploy.Dialect) -> IntegerNetwork:
    """A copy of the integer network for one compiler."""
    graph = copy.deepcopy(network.graph)
    state.report.add_remedies(dialect, run_editors(graph, deploy.editors(dialect, state.spec.remedies)))
    record_shapes(graph, state.input_shape)
    return read_layers(graph, network.interface)


def verify_(state: State) -> None:
    """The written files keep their contracts, and all executions agree bit for bit, or the job fails."""
    assert state.integer is not None
    assert state.files is not None
    htvm, dory = state.files
    for checked, parts in zip(check_contracts(state.folder), (htvm.parts, dory.parts), strict=True):
        state.report.add_checks(checked, parts)
        for note in breaches(checked):
            state.note(note)
    data = state.loaded
    _, split = data.report_split or ("calibration", data.calibration)
    entrance = state.integer.entrance
    x, real, random = sample_inputs(
        data.normalise(split.take(DATA_SAMPLES).x), entrance.scale, state.spec.recipe.seed, entrance.origin
    )
    executions = verify(state.integer, state.network, *state.files, x, state.deployed)
    state.report.add_verification(Verification(real, random, len(state.integer.layers) + 1, executions))


def assign(state: State) -> None:
    """Assign cores; refuse steps that no layer would take, and pixels that the analog core would read.

    Raises:
        InvalidSpec: an impossible mapping, progressive steps without an analog layer, or pixels with one at the input.
    """
    state.edit("canonicalise", hardware.assignment(state.spec.mapping))
    if state.spec.interface.input == "pixels":
        check_pixels(state.network)
    if state.spec.recipe.progressive and not _has_analog(state):
        raise InvalidSpec(
            "recipe.progressive has steps for the weights of analog layers, and no layer runs on the analog core; "
            "set mapping, or leave it out",
            param="recipe.progressive",
        )


def _has_analog(state: State) -> bool:
    return any(core_of(node) == "analog" for node in state.network.graph.nodes)


def _map(state: State, analog_weights: QRange) -> None:
    """Bring the network to the chip's ranges, the analog layers' weights to the given one."""
    data = state.loaded
    state.edit("hardware_mapped", hardware.mapping(analog_weights, data.input_steps))
    calibrate_analog(state.network, data.calibration, data.normalise)


def _train(state: State, iteration: Iteration) -> None:
    """Train an iteration as the recipe says, then measure it and keep its network."""
    _fit(state, iteration, iteration, state.spec.recipe.training(iteration))
    state.measure(iteration)
    origin = origin_of(state.spec, state.input_shape, state.model_path, state.start, state.own, state.given)
    path = state.folder / "checkpoints" / f"{iteration}.pt"
    save(state.network, path, iteration=iteration, origin=origin, teacher=state.teacher)


def _fit(state: State, training: str, iteration: Iteration, settings: Training) -> None:
    """Train, with the recipe's noise in the converters of analog layers.

    Args:
        training: its name among the job's, which that of its iteration begins: files are called after it.
    """
    state.network.eval()
    if not settings.epochs:
        return
    recipe = state.spec.recipe
    if not recipe.noise.silent:
        disturb(state.network, recipe.noise, recipe.seed)

    def emit(body: EventBody) -> None:
        if isinstance(body, MetricsBody):
            state.report.add_epoch(body)
        elif isinstance(body, LogBody):
            state.report.notes.append(body.message)
        state.emit(body)

    arguments: dict[str, Any] = {
        "task": state.task,
        "teacher": state.teacher,
        "iteration": iteration,
        "seed": recipe.seed,
    }
    snapshot = None if state.snapshots is None else state.snapshots.of(training)
    with placed(state.device, state.network, state.teacher):
        fed = (state.network, settings, state.data_on_device)
        if state.spec.profile:
            trace_step(*fed, state.folder / "profile" / f"{training}.json", **arguments)
        curves = train(*fed, **arguments, emit=emit, should_stop=state.should_stop, snapshot=snapshot)
    curves.write(state.folder / "tensorboard" / training / EVENTS)
    silence(state.network)


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
