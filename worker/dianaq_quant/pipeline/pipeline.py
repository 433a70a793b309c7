"""One job, from float network to verified bundle."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import fx, nn

from dianaq.errors import InvalidSpec, JobCancelled
from dianaq.inspection import inspect_dataset
from dianaq.schemas.events import EventBody, Stage, StageBody
from dianaq.schemas.spec import JobSpec
from dianaq_quant.bundle.bundle import new_bundle, sha256
from dianaq_quant.bundle.readme import bundle_readme
from dianaq_quant.bundle.report import Report
from dianaq_quant.bundle.report_html import report_page
from dianaq_quant.checkpoint import load
from dianaq_quant.graph import Editor, run_editors
from dianaq_quant.importers import Operators
from dianaq_quant.pipeline.stages import STAGES, assign
from dianaq_quant.pipeline.starting import check_start, identity
from dianaq_quant.pipeline.state import State
from dianaq_quant.training.device import choose_device, describe
from dianaq_quant.training.snapshots import Snapshots


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
    operators: Operators | None = None,
    snapshots: Path | None = None,
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
        editors: a user's own, which run before the stage's; those of `import` run on the network as it was read,
            before anything is substituted or refused.
        operators: a user's own, beside those of installed packages.
        snapshots: a folder in which trainings are written down after each epoch. A job that was run with it before, and
            died, goes on from there, and gives the same bundle; the files of other jobs are ignored. No two runs may
            have it at the same time. Nothing in it is needed once the bundle is there.

    Returns:
        The state that the last stage left: the exact and the integer network, and the report.

    Raises:
        DianaqError: says what is wrong with the input, or which layer cannot be brought onto the chip.
        JobCancelled: `should_stop` turned true.
    """
    own = editors or {}
    _check_editors(own, [name for name, _ in STAGES], "there is no such stage")
    torch.manual_seed(spec.recipe.seed)
    device = choose_device()
    report = Report(spec, describe(device))
    with new_bundle(out_dir, spec) as folder:
        empty = fx.GraphModule(torch.nn.Module(), fx.Graph())
        state = State(
            spec, model_path, module, dataset_path, folder, emit, should_stop, report, empty, own, input_shape, device
        )
        state.operators = operators or Operators()
        if snapshots is not None:
            snapshots.mkdir(parents=True, exist_ok=True)
            origin = identity(spec, model_path, dataset_path, start_from, report.device)
            state.snapshots = Snapshots(snapshots, origin, emit)
        if spec.profile and not spec.recipe.trains:
            state.note("no profile: the recipe trains nothing")
        stages = STAGES if start_from is None else _start(state, start_from)
        _check_editors(own, [name for name, _ in stages], "start_from leaves it out")
        for name, stage in stages:
            if should_stop():
                raise JobCancelled(f"cancelled before {name}")
            emit(StageBody(stage=name, status="started"))
            start = time.monotonic()
            if name != "import":  # which makes the network, and runs the user's editors on it itself
                state.report.add_edits(name, run_editors(state.network, state.editors.get(name, ())))
            stage(state)
            emit(StageBody(stage=name, status="finished", seconds=round(time.monotonic() - start, 3)))
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        (folder / "report.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
        (folder / "report.html").write_text(report_page(report.as_model(), files), encoding="utf-8")
        (folder / "README.md").write_text(bundle_readme(report, files))
    return state


def _check_editors(editors: Mapping[Stage, Sequence[Editor]], stages: list[Stage], otherwise: str) -> None:
    """Raises `InvalidSpec` for editors of other stages, which would never run."""
    for stage in editors:
        if stage not in stages:
            raise InvalidSpec(
                f"editors for {stage!r}: {otherwise}; there are {', '.join(stages)}", param=f"editors.{stage}"
            )


def _start(state: State, path: Path) -> list[tuple[Stage, Callable[[State], None]]]:
    """Take a checkpoint's network up; the stages that are left.

    Cores are chosen between `float` and `fake_quantised`: a float network goes to those of this job.
    """
    start = load(path)
    found = inspect_dataset(state.dataset_path)
    for note in check_start(start, state.spec, state.model_path, found):
        state.note(note)
    state.start, state.network, state.teacher = start, start.network, start.teacher
    state.input_shape, state.own, state.given = start.origin.input_shape, start.origin.own, start.origin.given
    state.report.started_from = {"iteration": start.iteration, "sha256": sha256(path), "versions": start.versions}
    state.load(found)
    if start.iteration == "float":
        assign(state)
        state.teacher = copy.deepcopy(state.network).requires_grad_(False)
    return STAGES[[name for name, _ in STAGES].index(start.iteration) + 1 :]
