"""`make bench-accuracy`: what the presets reach on real data.

Reads `../shared/data` (or `$DIANAQ_SHARED_DATA`): CIFAR-10, Speech Commands, noisy MNIST and trained networks; the
demo's digits come with scikit-learn. Every figure is that of the exported integer network, by the same pipeline as a
job's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from results import ROOT, record, table

from dianaq.events import EventBody, MetricsBody
from dianaq.figures import FIGURES, written
from dianaq.spec import JobSpec, Preprocessing, TaskName
from dianaq_quant.pipeline import run

sys.path.insert(0, str(ROOT / "examples"))
DATA = Path(os.environ.get("DIANAQ_SHARED_DATA", ROOT.parent / "shared" / "data"))


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
    """A network, its data, and what its integer network has to reach, by preset."""

    name: str
    model: Path
    dataset: Path
    preprocessing: Preprocessing
    recipes: dict[str, dict[str, object]]
    limits: dict[str, Drop | Floor]
    task: TaskName = "classification"
    metric: str = "top1"
    """The figure (see `dianaq.figures`) that is shown and limited; larger is better."""


def cifar10(folder: Path) -> Path:
    """CIFAR-10 as a job takes it: the training set, and the first 2,000 test images."""
    train, test = np.load(DATA / "cifar10_train.npz"), np.load(DATA / "cifar10_test_2k.npz")
    path = folder / "cifar10.npz"
    np.savez(path, x_train=train["x"], y_train=train["y"], x_test=test["x"], y_test=test["y"])
    return path


def speech_commands(folder: Path) -> Path:
    """The official test set is all there is: the first 2,000 are measured, the last 512 calibrate, without labels.

    The file is sorted by class: five of the twelve are measured, two others calibrate. See `speech_commands_mixed`.
    """
    stored = np.load(DATA / "speech_commands_mfcc.npz")
    path = folder / "speech_commands.npz"
    np.savez(path, x_train=stored["x"][-512:], x_test=stored["x"][:2000], y_test=stored["y"][:2000])
    return path


def speech_commands_mixed(folder: Path) -> Path:
    """The same in random order, all classes in both parts: the last 512 calibrate, all others (4,378) are measured."""
    stored = np.load(DATA / "speech_commands_mfcc.npz")
    order = np.random.default_rng(0).permutation(len(stored["y"]))
    x, y = stored["x"][order], stored["y"][order]
    path = folder / "speech_commands_mixed.npz"
    np.savez(path, x_train=x[-512:], x_test=x[:-512], y_test=y[:-512])
    return path


def noisy_mnist(folder: Path) -> Path:
    """Label 1 marks anomalies. The first 8,976 are measured; of the last 1,024, the normal ones calibrate."""
    stored = np.load(DATA / "anomaly_mnist_val.npz")
    x, y = stored["x"], stored["y"]
    path = folder / "noisy_mnist.npz"
    np.savez(path, x_train=x[-1024:], y_train=y[-1024:], x_test=x[:-1024], y_test=y[:-1024])
    return path


def cases(folder: Path) -> list[Case]:
    """What is measured."""
    from demo import MEAN, RECIPE, STD
    from digits import write_files

    cifar, normalised = cifar10(folder), Preprocessing(mean=(0.5,), std=(0.5,))
    # Flips and crops leave a CIFAR-10 image in its class: what its owner knows of the data, and a preset cannot.
    augmented = {"augmentation": "flip_crop"}
    presets: dict[str, dict[str, object]] = {
        "ptq": {"preset": "ptq"},
        "qat": {"preset": "qat", "hardware_mapped": augmented, "hardware_exact": augmented},
    }
    found = [
        Case(
            name,
            DATA / "models" / f"diana_{name}.onnx",
            cifar,
            normalised,
            presets,
            {"ptq": Drop(0.6), "qat": Drop(qat)},
        )
        for name, qat in (("resnet8", 0.2), ("resnet20", 0.3))
    ]
    # There are no training data for these.
    dscnn, dae = (DATA / "models" / f"diana_{name}.onnx" for name in ("dscnn", "dae"))
    ptq = {"ptq": presets["ptq"]}
    found += [
        Case("dscnn", dscnn, speech_commands(folder), Preprocessing(), ptq, {"ptq": Drop(0.2)}),
        Case("dscnn_mixed", dscnn, speech_commands_mixed(folder), Preprocessing(), ptq, {"ptq": Drop(0.2)}),
        Case("dae", dae, noisy_mnist(folder), normalised, ptq, {"ptq": Floor(0.955)}, "reconstruction", "auc"),
    ]
    # The float epochs of the demo's own job come first; then the chip's network, as trained and not.
    model, dataset = write_files(folder)
    whole = RECIPE.model_dump(mode="json", by_alias=True)
    untrained = {i: {**whole[i], "epochs": 0} for i in ("fake_quantised", "hardware_mapped", "hardware_exact")}
    recipes = {"ptq": {**whole, **untrained}, "qat": whole}
    preprocessing = Preprocessing(mean=(MEAN,), std=(STD,))
    found.append(Case("digits", model, dataset, preprocessing, recipes, {"ptq": Drop(1.5), "qat": Drop(0.5)}))
    return found


def measure(case: Case, preset: str, folder: Path) -> list[str]:
    """Run one job; a row of the table."""
    spec = JobSpec(
        model=case.name,
        dataset="-",
        task=case.task,
        preprocessing=case.preprocessing,
        recipe=case.recipes[preset],
    )
    out = folder / f"{case.name}-{preset}"
    start = time.monotonic()
    run(spec, model_path=case.model, dataset_path=case.dataset, out_dir=out, emit=_tell)
    seconds = time.monotonic() - start
    report = json.loads((out / "report.json").read_text())
    found = {entry["stage"]: entry[case.metric] for entry in report["accuracy"]}
    samples = report["accuracy"][-1]["samples"]
    unit, digits = (100, 2) if case.metric in ("top1", "top5") else (1, 4)
    drop = unit * (found["float"] - found["integerise"])
    limit = case.limits[preset]
    verdict = "met" if limit.met(drop, unit * found["integerise"]) else "MISSED"
    return [
        case.name,
        preset,
        FIGURES[case.metric],
        *(written(case.metric, found[s]) for s in ("float", "fake_quantised", "hardware_mapped", "integerise")),
        f"{drop:+.{digits}f}",
        f"{limit} {verdict}",
        f"{samples}",
        f"{seconds:.0f} s",
    ]


def _tell(body: EventBody) -> None:
    if isinstance(body, MetricsBody):
        print(f"  {body.stage:16} {body.epoch or '':3} {body.values}", flush=True)


def main() -> int:
    """Measure, print and record; 1 if a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="measure these, and record nothing")
    parser.add_argument("--presets", nargs="+", default=["ptq", "qat"])
    args = parser.parse_args()
    if not DATA.is_dir():
        print(f"no real data at {DATA}; set DIANAQ_SHARED_DATA", file=sys.stderr)
        return 1
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in cases(folder):
            for preset in args.presets:
                if preset in case.recipes and (not args.only or case.name in args.only):
                    print(f"{case.name} {preset}", flush=True)
                    rows.append(measure(case, preset, folder))
    stages = ["float", "fake-quantised", "mapped", "integer"]
    header = ["network", "preset", "figure", *stages, "drop", "limit", "samples", "job"]
    text = table(header, rows)
    print(text)
    if not args.only:
        how = "One job each, seed 0; accuracy is top-1; `drop` is float minus integer, of accuracies in points."
        record("Accuracy", f"{how}\n\n{text}")
    return int(any("MISSED" in cell for row in rows for cell in row))


if __name__ == "__main__":
    sys.exit(main())
