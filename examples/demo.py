"""The whole service in two minutes: start it, train and quantise a network, run the result, stop it.

    make demo

Everything lands in `demo-out/`. The network is trained on scikit-learn's handwritten digits, through all four
iterations, and the integer network that comes back runs here, in onnxruntime, on images that it has never seen.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from digits import CLASSES, digits, write_files

from dianaq import Client, DianaqError, JobSpec, Preprocessing, Recipe, Training
from dianaq.cli.summary import measurements
from dianaq.cli.tables import table
from dianaq_worker.embedded import LocalStack

MEAN, STD = 0.5, 0.5
"""Brings pixels to -1..1, which uses the whole of a signed input range."""

RECIPE = Recipe(
    float=Training(epochs=30, learning_rate=0.05, batch_size=64, weight_decay=1e-4, warmup_epochs=1),
    fake_quantised=Training(epochs=3, learning_rate=0.002, batch_size=64, distillation=0.5),
    hardware_mapped=Training(epochs=3, learning_rate=0.002, batch_size=64, distillation=0.5),
    hardware_exact=Training(epochs=6, learning_rate=0.002, batch_size=64, distillation=0.5),
)
"""The float network is trained from scratch; each further iteration only repairs what it changed."""


def main() -> int:
    """Run the demo; 0 when the integer network came back and was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where everything lands")
    out = parser.parse_args().out
    started = time.monotonic()
    try:
        bundle = quantise(out)
    except DianaqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is stopped", file=sys.stderr)
        return 130
    report(bundle)
    print(f"\nbundle  {bundle}   ({time.monotonic() - started:.0f} s in all)")
    return 0


def quantise(out: Path) -> Path:
    """Start the service, have it train and quantise the network, stop it; the folder of the bundle."""
    model_file, dataset_file = write_files(out)
    step("starting Redis, a worker and the API on this machine")
    with LocalStack(data_dir=out / "service") as stack, Client(stack.url, stack.key) as client:
        step(f"uploading {model_file} and {dataset_file} to {client.url}")
        spec = JobSpec(
            model=client.upload_model(model_file).id,
            dataset=client.upload_dataset(dataset_file).id,
            preprocessing=Preprocessing(mean=(MEAN,), std=(STD,)),
            recipe=RECIPE,
        )
        job = client.submit_job(spec)
        step(f"job {job.id}: training and quantising")
        job.wait()
        step("downloading the bundle")
        bundle = job.download(out / "bundle", overwrite=True)
        step("stopping the service")
    return bundle


def report(bundle: Path) -> None:
    """Accuracies by stage as the service measured them, and of the downloaded network as measured here."""
    arrays = digits()
    images, labels = arrays["x_test"], arrays["y_test"]
    rows = [
        (entry["stage"], f"{entry['samples']} images of {entry['split']}", f"{entry['top1']:.2%}", "service")
        for entry in measurements(bundle)
        if entry["split"] == "test"
    ]
    measured = f"{run(bundle / 'htvm' / 'model.onnx', images, labels):.2%}"
    rows.append(("integer", f"{len(labels)} images of test", measured, "here, onnxruntime"))
    print("\n" + table(("network", "measured on", "accuracy", "by"), rows))


def run(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of an exported integer network, image by image as on the chip.

    The network quantises its float input itself; its head may be padded beyond the classes.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    x = ((images / np.float32(255) - MEAN) / STD).astype(np.float32)[:, None, None]
    scores = [session.run(None, {"input": image})[0].reshape(-1)[:CLASSES] for image in x]
    return float((np.argmax(scores, axis=1) == labels).mean())


def step(what: str) -> None:
    print(f"-- {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
