"""`make bench-accuracy`: what the presets reach on real data.

Reads `../shared/data` (or `$DIANAQ_SHARED_DATA`): CIFAR-10 and three trained networks; the demo's digits come with
scikit-learn. Every accuracy is that of the exported integer network, by the same pipeline as a job's.
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
import torch
from results import ROOT, record, table
from torch.nn import functional as F

from dianaq.events import EventBody, MetricsBody
from dianaq.spec import JobSpec, Preprocessing
from dianaq_quant.pipeline import run

sys.path.insert(0, str(ROOT / "examples"))
DATA = Path(os.environ.get("DIANAQ_SHARED_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Case:
    """A network, its data, and the largest accepted loss of accuracy in points, by preset."""

    name: str
    model: Path
    dataset: Path
    preprocessing: Preprocessing
    recipes: dict[str, dict[str, object]]
    limits: dict[str, float]


def cifar10(folder: Path) -> Path:
    """CIFAR-10 as a job takes it: the training set, and the first 2,000 test images."""
    train, test = np.load(DATA / "cifar10_train.npz"), np.load(DATA / "cifar10_test_2k.npz")
    path = folder / "cifar10.npz"
    np.savez(path, x_train=train["x"], y_train=train["y"], x_test=test["x"], y_test=test["y"])
    return path


def cifar10_96(folder: Path) -> Path:
    """CIFAR-10 at 96 x 96, bilinear: every 12th training image, and the first 2,000 test images."""
    train, test = np.load(DATA / "cifar10_train.npz"), np.load(DATA / "cifar10_test_2k.npz")
    path = folder / "cifar10_96.npz"
    x_train, x_test = (_enlarged(x) for x in (train["x"][::12], test["x"]))
    np.savez(path, x_train=x_train, y_train=train["y"][::12], x_test=x_test, y_test=test["y"])
    return path


def _enlarged(images: np.ndarray) -> np.ndarray:
    """Images (N, 32, 32, 3) at 96 x 96, rounded to uint8; a part at a time, because they pass through float32."""
    parts = (torch.from_numpy(images[i : i + 500]).permute(0, 3, 1, 2).float() for i in range(0, len(images), 500))
    large = (F.interpolate(part, size=(96, 96), mode="bilinear", align_corners=False) for part in parts)
    return np.concatenate([part.round().to(torch.uint8).permute(0, 2, 3, 1).numpy() for part in large])


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
        Case(name, DATA / "models" / f"diana_{name}.onnx", cifar, normalised, presets, {"ptq": 0.4, "qat": qat})
        for name, qat in (("resnet8", 0.2), ("resnet20", 0.3))
    ]
    mobilenet, ptq = DATA / "models" / "diana_mobilenetv1.onnx", {"ptq": presets["ptq"]}
    found.append(Case("mobilenetv1", mobilenet, cifar10_96(folder), normalised, ptq, {"ptq": 0.5}))
    # The float epochs of the demo's own job come first; then the chip's network, as trained and not.
    model, dataset = write_files(folder)
    whole = RECIPE.model_dump(mode="json", by_alias=True)
    untrained = {i: {**whole[i], "epochs": 0} for i in ("fake_quantised", "hardware_mapped", "hardware_exact")}
    recipes = {"ptq": {**whole, **untrained}, "qat": whole}
    preprocessing = Preprocessing(mean=(MEAN,), std=(STD,))
    found.append(Case("digits", model, dataset, preprocessing, recipes, {"ptq": 1.5, "qat": 0.5}))
    return found


def measure(case: Case, preset: str, folder: Path) -> list[str]:
    """Run one job; a row of the table."""
    spec = JobSpec(model=case.name, dataset="-", preprocessing=case.preprocessing, recipe=case.recipes[preset])
    out = folder / f"{case.name}-{preset}"
    start = time.monotonic()
    run(spec, model_path=case.model, dataset_path=case.dataset, out_dir=out, emit=_tell)
    seconds = time.monotonic() - start
    report = json.loads((out / "report.json").read_text())
    top1 = {entry["stage"]: 100 * entry["top1"] for entry in report["accuracy"]}
    samples = report["accuracy"][-1]["samples"]
    drop = top1["float"] - top1["integerise"]
    verdict = "met" if drop <= case.limits[preset] + 1e-9 else "MISSED"
    figures = [f"{top1[stage]:.2f}" for stage in ("float", "fake_quantised", "hardware_mapped", "integerise")]
    return [
        case.name,
        preset,
        *figures,
        f"{drop:+.2f}",
        f"{case.limits[preset]} {verdict}",
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
    header = ["network", "preset", "float", "fake-quantised", "mapped", "integer", "drop", "limit", "samples", "job"]
    text = table(header, rows)
    print(text)
    if not args.only:
        record("Accuracy", "Top-1 in %, of one job each, seed 0; `drop` is float minus integer, in points.\n\n" + text)
    return int(any("MISSED" in row[7] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
