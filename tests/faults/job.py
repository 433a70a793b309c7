"""The job that is disturbed, and what it gives undisturbed.

A bundle names the uploads that it was made from. So that two stacks can make the same bytes, the uploads of the
first (made through the SDK) are put into the others as they are, with their ids.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quant.jobs import write_files

from dianaq import Artifact, Dataset, JobSpec, Model
from dianaq_service.database import DatasetRow, ModelRow

from .stack import Stack

OWNER = "default"

COLUMNS = {"id", "name", "sha256", "size", "created"}
"""Of an upload's row, that a resource has as they are."""

Length = Literal["short", "long"]

EPOCHS: dict[Length, int] = {"short": 12, "long": 120}
"""Of the float training: a second or two, and some ten, on a machine that has nothing else to do."""


@dataclass(frozen=True)
class Reference:
    """An undisturbed job: its uploads, what it was told, and the files of its bundle with their hashes."""

    model: Model
    dataset: Dataset
    spec: JobSpec
    artifacts: list[Artifact]
    blobs: Path


def specification(model: Model, dataset: Dataset, length: Length, **changes: Any) -> JobSpec:
    """The job: all that is trained has a state that a resumed attempt must find again."""
    training = {"learning_rate": 0.01, "batch_size": 20}
    return JobSpec.model_validate(
        {
            "model": model.id,
            "dataset": dataset.id,
            "preprocessing": {"mean": [0.5], "std": [0.5]},
            "recipe": {
                "float": {**training, "epochs": EPOCHS[length], "augmentation": "flip"},
                "hardware_mapped": {**training, "epochs": 2, "averaging": 0.5, "optimiser": "adam"},
                "hardware_exact": {**training, "epochs": 2, "learning_rate": 0.001},
            },
            **changes,
        }
    )


def undisturbed(folder: Path, length: Length) -> Reference:
    """Run the job on a stack of its own, through the SDK from upload to download."""
    write_files(folder)
    with Stack(folder / "stack") as stack, stack.client() as client:
        model = client.upload_model(folder / "model.onnx")
        dataset = client.upload_dataset(folder / "data.npz")
        spec = specification(model, dataset, length)
        job = client.submit_job(spec)
        job.wait(progress=False)
        job.download(folder / "bundle")
        artifacts = job.artifacts()
        blobs = folder / "blobs"
        shutil.copytree(stack.storage.root / "blobs", blobs)
    return Reference(model, dataset, spec, artifacts, blobs)


def plant(stack: Stack, reference: Reference) -> None:
    """Put the reference's uploads into another stack."""
    shutil.copytree(reference.blobs, stack.storage.root / "blobs", dirs_exist_ok=True)
    rows = ((ModelRow, reference.model), (DatasetRow, reference.dataset))
    with stack.database.write() as session:
        for table, upload in rows:
            session.add(
                table(owner=OWNER, **upload.model_dump(include=COLUMNS), info=upload.info.model_dump(mode="json"))
            )
