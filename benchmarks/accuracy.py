"""`make bench-accuracy`: what jobs reach on real data; `make bench-accuracy-long` those that train for hours.

Reads CIFAR-10, Speech Commands, noisy MNIST and trained networks (see `data.py`); the demo's digits come with
scikit-learn. Every figure is that of the exported integer network, by the same pipeline as a job's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from data import DATA, cifar10, cifar10_96, network, noisy_mnist, speech_commands
from results import ROOT, record_rows, table

from dianaq.events import EventBody, MetricsBody
from dianaq.figures import FIGURES, written
from dianaq.recipe import merge
from dianaq.spec import JobSpec, checkpoint_of
from dianaq_quant.pipeline import run

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

    `spec` is the job's specification without model and dataset; `after` names a case of the same network whose bundle
    it starts from, by `start_from`'s iteration.
    """

    network: str
    job: str
    model: Path
    dataset: Callable[[Path], Path]
    spec: Mapping[str, Any]
    limit: Drop | Floor | None
    metric: str = "top1"
    """The figure (see `dianaq.figures`) that is shown and limited; larger is better."""
    after: tuple[str, str] | None = None


HEADER = ["network", "job", "figure", "float", "fake-quantised", "mapped", "integer", "drop", "limit"]
HEADER += ["samples", "took"]
NOTE = "One job each, seed 0; accuracy is top-1; `drop` is float minus integer, of accuracies in points."
NOISE_NOTE = "Accuracy in % under Gaussian noise in the converters, mean and standard deviation of 10 draws."

NORMALISED = {"preprocessing": {"mean": [0.5], "std": [0.5]}}

# Flips and crops leave a CIFAR-10 image in its class: what its owner knows of the data, and a preset cannot.
AUGMENTED = {"augmentation": "flip_crop"}
PTQ = {**NORMALISED, "recipe": {"preset": "ptq"}}
PIXELS = {"input": "pixels", "output": "int8"}
QAT = {**NORMALISED, "recipe": {"preset": "qat", "hardware_mapped": AUGMENTED, "hardware_exact": AUGMENTED}}


def cases(folder: Path) -> list[Case]:
    """What `make bench-accuracy` measures; the digits and their network are written into the folder."""
    from demo import MEAN, RECIPE, STD
    from digits import write_files

    found = []
    for name, qat in (("resnet8", 0.2), ("resnet20", 0.3)):
        found += [
            Case(name, "ptq", network(name), cifar10, PTQ, Drop(0.4)),
            Case(name, "ptq, pixels", network(name), cifar10, {**PTQ, "interface": PIXELS}, Drop(0.4)),
            Case(name, "qat", network(name), cifar10, QAT, Drop(qat)),
        ]
    # There are no training data for these: a thousand samples without labels at most.
    plain, tuned = {"recipe": {"preset": "ptq"}}, {"recipe": {"preset": "ptq-tuned"}}
    reconstruction = {**PTQ, "task": "reconstruction"}
    found += [
        Case("mobilenetv1", "ptq", network("mobilenetv1"), cifar10_96, PTQ, Drop(0.5)),
        Case("dscnn", "ptq", network("dscnn"), speech_commands, plain, None),
        Case("dscnn", "ptq-tuned", network("dscnn"), speech_commands, tuned, Drop(0.2)),
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
    """What `make bench-accuracy-long` measures: networks on both cores, and as good as float on the digital one."""
    mixed = merge(NORMALISED, yaml.safe_load((ROOT / "examples" / "mixed.yaml").read_text()))
    # Two epochs more, now with the noise of the middle of the sweep.
    noisy = {"epochs": 2, "learning_rate": 0.0002}
    started = {"hardware_mapped": {"epochs": 0}, "hardware_exact": noisy, "noise": {"gaussian": 0.5}}
    # The float network was trained without crops, and has something to gain from them.
    training = {**AUGMENTED, "epochs": 8, "learning_rate": 0.05, "distillation": 0.0}
    longer = merge(QAT, {"recipe": {"hardware_mapped": training}})
    return [
        Case("resnet8", "mixed", network("resnet8"), cifar10, mixed, Drop(2.0)),
        Case("resnet20", "mixed", network("resnet20"), cifar10, mixed, Floor(88.5)),
        Case(
            "resnet20",
            "mixed, noisy",
            network("resnet20"),
            cifar10,
            merge(mixed, {"recipe": started}),
            None,
            after=("mixed", "hardware_mapped"),
        ),
        Case("resnet20", "qat, longer", network("resnet20"), cifar10, longer, Drop(0.0)),
    ]


def measure(case: Case, folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Run one job; its row of the table, and its noise sweep if it has one."""
    data = folder / case.dataset.__name__
    data.mkdir(exist_ok=True)
    dataset = next(data.glob("*.npz"), None) or case.dataset(data)
    out, start = _bundle(folder, case.network, case.job), None
    spec = {**case.spec, "model": case.network, "dataset": "-"}
    if case.after is not None:
        parent = _bundle(folder, case.network, case.after[0])
        spec["start_from"] = f"{parent}/{case.after[1]}"
    job = JobSpec.model_validate(spec)
    if job.start is not None:
        start = Path(job.start[0]) / checkpoint_of(job.start[1])
    began = time.monotonic()
    run(job, model_path=case.model, dataset_path=dataset, out_dir=out, emit=_tell, start_from=start)
    seconds = time.monotonic() - began
    report = json.loads((out / "report.json").read_text())
    found = {entry["stage"]: entry[case.metric] for entry in report["accuracy"]}
    for stage in ("float", "fake_quantised", "hardware_mapped"):
        found.setdefault(stage, None)  # before the iteration that the job started from
    unit, digits = (100, 2) if case.metric in ("top1", "top5") else (1, 4)
    drop = None if found["float"] is None else unit * (found["float"] - found["integerise"])
    verdict = "-"
    if case.limit is not None:
        met = case.limit.met(0.0 if drop is None else drop, unit * found["integerise"])
        verdict = f"{case.limit} {'met' if met else 'MISSED'}"
    row = [
        case.network,
        case.job,
        FIGURES[case.metric],
        *(written(case.metric, found[s]) for s in ("float", "fake_quantised", "hardware_mapped", "integerise")),
        "-" if drop is None else f"{drop:+.{digits}f}",
        verdict,
        f"{report['accuracy'][-1]['samples']}",
        f"{seconds:.0f} s",
    ]
    return row, report["noise_sweep"]


def _bundle(folder: Path, name: str, job: str) -> Path:
    return folder / f"{name}-{job.replace(', ', '-')}"


def _tell(body: EventBody) -> None:
    if isinstance(body, MetricsBody):
        print(f"  {body.stage:16} {body.epoch or '':3} {body.values}", flush=True)


def main() -> int:
    """Measure, print and record, case by case; 1 if a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="the jobs that train for hours")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="measure these alone")
    parser.add_argument("--jobs", nargs="+", metavar="JOB", help="measure such jobs alone")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep datasets and bundles here, where jobs that start from others find theirs (default: a temporary one)",
    )
    args = parser.parse_args()
    if not DATA.is_dir():
        print(f"no real data at {DATA}; set DIANAQ_SHARED_DATA", file=sys.stderr)
        return 1
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
            record_rows("Accuracy", NOTE, HEADER, [row])
            if sweep:
                levels = [f"{entry['gaussian']:g} LSB" for entry in sweep]
                cells = [f"{100 * e[case.metric]['mean']:.2f} ± {100 * e[case.metric]['std']:.2f}" for e in sweep]
                record_rows("Noise", NOISE_NOTE, ["network", "job", *levels], [[case.network, case.job, *cells]])
            missed |= any("MISSED" in cell for cell in row)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
