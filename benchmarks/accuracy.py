"""`make bench-accuracy`: what jobs reach on real data; `make bench-accuracy-long` those that train for hours.

Reads CIFAR-10, Speech Commands, noisy MNIST and trained networks (see `data.py`); the demo's digits come with
scikit-learn. Every figure is that of the exported integer network, by the same pipeline as a job's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from data import (
    DATA,
    cifar10,
    cifar10_96,
    cifar10_96_whole,
    network,
    noisy_mnist,
    speech_commands,
    speech_commands_labelled,
)
from results import ROOT, record_rows, table, titled

from dianaq.schemas.events import EventBody, MetricsBody
from dianaq.schemas.figures import FIGURES, written
from dianaq.schemas.recipe import merge
from dianaq.schemas.spec import JobSpec
from dianaq_quant.pipeline import run
from dianaq_quant.training.device import choose_device

sys.path.insert(0, str(ROOT / "examples"))


@dataclass(frozen=True)
class Drop:
    """The integer network loses at most so much against the float one: points of an accuracy, else the figure itself.

    A drop below zero asks for more than the float network reaches.
    """

    most: float

    def met(self, change: float, figure: float) -> bool:
        return change <= self.most + 1e-9

    def __str__(self) -> str:
        return f"{self.most:g}"


@dataclass(frozen=True)
class Floor:
    """The integer network's figure is at least this, in percent for an accuracy."""

    least: float

    def met(self, change: float, figure: float) -> bool:
        return figure >= self.least

    def __str__(self) -> str:
        return f">= {self.least:g}"


@dataclass(frozen=True)
class Case:
    """A job, and what its integer network has to reach.

    `spec` is the job's specification without model and dataset.
    """

    network: str
    job: str
    model: Path
    dataset: Callable[[Path], Path]
    spec: Mapping[str, Any]
    limit: Drop | Floor | None
    metric: str = "top1"
    """The figure (see `dianaq.schemas.figures`) that is shown and limited; larger is better."""
    noisy: tuple[float, float] | None = None
    """A level of noise in LSB, and the least mean of the figure under it, in percent."""


HEADER = ["network", "job", "figure", "float", "fake-quantised", "mapped", "integer", "drop", "limit"]
HEADER += ["samples", "took"]
NOTE = "One job each, seed 0; accuracy is top-1; `drop` is float minus integer, of accuracies in points."
NOISE_NOTE = "Accuracy in % under Gaussian noise in the converters, mean and standard deviation of 10 draws."

NORMALISED = {"preprocessing": {"mean": [0.5], "std": [0.5]}}

# Flips and crops leave a CIFAR-10 image in its class: what its owner knows of the data, and a preset cannot.
AUGMENTED = {"augmentation": "flip_crop"}
PTQ = {**NORMALISED, "recipe": {"preset": "ptq"}}
TUNED = {**NORMALISED, "recipe": {"preset": "ptq-tuned"}}
PIXELS = {"input": "pixels", "output": "int8"}


def preset(name: str) -> dict[str, Any]:
    """A job by a preset, trained on photographs."""
    return {**NORMALISED, "recipe": {"preset": name, "hardware_mapped": AUGMENTED, "hardware_exact": AUGMENTED}}


def cases(folder: Path) -> list[Case]:
    """What `make bench-accuracy` measures; the digits and their network are written into the folder."""
    from demo import MEAN, RECIPE, STD
    from digits import write_files

    found = []
    for name, fast in (("resnet8", 0.2), ("resnet20", 0.3)):
        found += [
            Case(name, "ptq", network(name), cifar10, PTQ, Drop(0.4)),
            Case(name, "ptq, pixels", network(name), cifar10, {**PTQ, "interface": PIXELS}, Drop(0.4)),
            Case(name, "ptq-tuned", network(name), cifar10, TUNED, None),
            Case(name, "qat-fast", network(name), cifar10, preset("qat-fast"), Drop(fast)),
        ]
    # A thousand samples at most for these, without labels but where they are trained on.
    plain, tuned, trained = ({"recipe": {"preset": name}} for name in ("ptq", "ptq-tuned", "qat"))
    unlimited = merge(trained, {"recipe": {"hardware_mapped": {"clip": None}}})
    reconstruction = {**PTQ, "task": "reconstruction"}
    found += [
        Case("mobilenetv1", "ptq", network("mobilenetv1"), cifar10_96, PTQ, Drop(0.5)),
        Case("mobilenetv1", "ptq-tuned", network("mobilenetv1"), cifar10_96, TUNED, None),
        Case("dscnn", "ptq", network("dscnn"), speech_commands, plain, None),
        Case("dscnn", "ptq-tuned", network("dscnn"), speech_commands, tuned, Drop(0.2)),
        Case("dscnn", "qat", network("dscnn"), speech_commands_labelled, trained, Drop(0.0)),
        Case("dscnn", "qat without clip", network("dscnn"), speech_commands_labelled, unlimited, None),
        Case("dae", "ptq", network("dae"), noisy_mnist, reconstruction, Floor(0.955), metric="auc"),
    ]
    # The float epochs of the demo's own job come first; then the chip's network, as trained and not.
    model, dataset = write_files(folder)
    whole = RECIPE.model_dump(mode="json", by_alias=True)
    untrained = {i: {**whole[i], "epochs": 0} for i in ("fake_quantised", "hardware_mapped", "hardware_exact")}
    for job, recipe, limit in (("ptq", {**whole, **untrained}, 1.5), ("qat", whole, 0.5)):
        spec = {"preprocessing": {"mean": [MEAN], "std": [STD]}, "recipe": recipe}
        found.append(Case("digits", job, model, lambda _: dataset, spec, Drop(limit)))
    return found


def long_cases() -> list[Case]:
    """What `make bench-accuracy-long` measures: what the presets reach that train for longer."""
    mixed = merge(NORMALISED, yaml.safe_load((ROOT / "examples" / "mixed.yaml").read_text()))
    return [
        Case("resnet8", "qat", network("resnet8"), cifar10, preset("qat"), Drop(0.0)),
        Case("mobilenetv1", "qat-fast", network("mobilenetv1"), cifar10_96_whole, preset("qat-fast"), None),
        Case("mobilenetv1", "qat", network("mobilenetv1"), cifar10_96_whole, preset("qat"), Drop(0.0)),
        Case("resnet20", "qat", network("resnet20"), cifar10, preset("qat"), Drop(-0.2)),
        Case("resnet8", "mixed, qat-best", network("resnet8"), cifar10, mixed, Drop(1.0)),
        Case("resnet20", "mixed, qat-best", network("resnet20"), cifar10, mixed, Floor(90.3), noisy=(0.5, 89.5)),
    ]


def measure(case: Case, folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Run one job; its row of the table, and its noise sweep if it has one."""
    data = folder / case.dataset.__name__
    data.mkdir(exist_ok=True)
    dataset = next(data.glob("*.npz"), None) or _made(case, data)
    name = f"{case.network}-{case.job.replace(', ', '-')}"
    job = JobSpec.model_validate({**case.spec, "model": case.network, "dataset": "-"})
    seconds = folder / f"{name}.seconds"  # of the runs that ended early, whose training is gone on from
    began = time.monotonic()
    shutil.rmtree(folder / name, ignore_errors=True)  # of a run that was complete
    try:
        run(
            job,
            model_path=case.model,
            dataset_path=dataset,
            out_dir=folder / name,
            emit=_tell,
            snapshots=folder / f"{name}.snapshots",
        )
    finally:
        took = time.monotonic() - began + (float(seconds.read_text()) if seconds.exists() else 0.0)
        seconds.write_text(f"{took}")
    out = folder / name
    report = json.loads((out / "report.json").read_text())
    found = {entry["stage"]: entry[case.metric] for entry in report["accuracy"]}
    unit, digits = (100, 2) if case.metric in ("top1", "top5") else (1, 4)
    drop = unit * (found["float"] - found["integerise"])
    verdict = "-" if case.limit is None else _verdict(case.limit, case.limit.met(drop, unit * found["integerise"]))
    if case.noisy is not None:
        level, least = case.noisy
        mean = next(unit * entry[case.metric]["mean"] for entry in report["noise_sweep"] if entry["gaussian"] == level)
        verdict += f"; {_verdict(Floor(least), mean >= least)} at {level} LSB"
    row = [
        case.network,
        case.job,
        FIGURES[case.metric],
        *(written(case.metric, found[s]) for s in ("float", "fake_quantised", "hardware_mapped", "integerise")),
        f"{drop:+.{digits}f}",
        verdict,
        f"{report['accuracy'][-1]['samples']}",
        f"{took:.0f} s",
    ]
    return row, report["noise_sweep"]


def _made(case: Case, folder: Path) -> Path:
    """The dataset in the folder, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder) as making:
        path = case.dataset(Path(making))
        return path.rename(folder / path.name)


def _verdict(limit: Drop | Floor, met: bool) -> str:
    return f"{limit} {'met' if met else 'MISSED'}"


def _tell(body: EventBody) -> None:
    if isinstance(body, MetricsBody):
        print(f"  {body.stage:16} {body.epoch or '':3} {body.values}", flush=True)


def main() -> int:
    """Measure, print and record, case by case; 1 if a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="the jobs that train for longer")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="measure these alone")
    parser.add_argument("--jobs", nargs="+", metavar="JOB", help="measure such jobs alone")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep datasets and bundles here, and go on with trainings that ended early (default: a temporary one)",
    )
    args = parser.parse_args()
    if not DATA.is_dir():
        print(f"no real data at {DATA}; set DIANAQ_SHARED_DATA", file=sys.stderr)
        return 1
    device = choose_device()
    missed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for case in long_cases() if args.long else cases(folder):
            if (args.only and case.network not in args.only) or (args.jobs and case.job not in args.jobs):
                continue
            print(f"{case.network} {case.job}", flush=True)
            row, sweep = measure(case, folder)
            print(table(HEADER, [row]), flush=True)
            record_rows(titled("Accuracy", device), NOTE, HEADER, [row])
            if sweep:
                levels = [f"{entry['gaussian']:g} LSB" for entry in sweep]
                cells = [f"{100 * e[case.metric]['mean']:.2f} ± {100 * e[case.metric]['std']:.2f}" for e in sweep]
                record_rows(
                    titled("Noise", device), NOISE_NOTE, ["network", "job", *levels], [[case.network, case.job, *cells]]
                )
            missed |= any("MISSED" in cell for cell in row)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
