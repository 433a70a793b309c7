"""What the files of a bundle are for, told once: the README and the report's page list them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

PURPOSES = {
    "htvm/model.onnx": "the network for HTVM: plain ONNX, integers in float32 tensors; runs in onnxruntime",
    "htvm/input.npy": "one sample as that file takes it",
    "htvm/output.npy": "what the network gives for it",
    "dory/model.onnx": "the network for DORY (Quantlab front end)",
    "dory/dory.json": "DORY's configuration: what `network_generate.py` is given",
    "dory/input.txt": "the same sample as bytes, for DORY",
    "dory/out_layer*.txt": "every layer's output for it as integers, in DORY's order",
    "golden/*": "golden vectors: samples, and every layer's output for them",
    "checkpoints/*.pt": "the network after each iteration of this job; another job can start from one",
    "tensorboard/*": "curves of each training, for TensorBoard: `tensorboard --logdir tensorboard`",
    "profile/*": "one training step of each training, timed, for chrome://tracing; differs from run to run",
    "report.html": "the report, to be read in a browser: whether to deploy, figures, layers, cost, memory",
    "report.json": "the same for programs; `dianaq schema report` describes it",
    "README.md": "what the files are, how to hand them on, what was verified",
    "manifest.json": "sha256 of every file, and the job's specification",
}
"""By pattern, in the order in which they are listed."""

MADE_LAST = ("report.html", "report.json", "README.md", "manifest.json")
"""Files that every bundle has, and that are written after the rest."""


def purpose(path: str) -> str:
    """What a file is for; nothing for one that nobody described."""
    return next((words for pattern, words in PURPOSES.items() if fnmatchcase(path, pattern)), "")


def described(files: Iterable[str]) -> dict[str, str]:
    """The patterns that describe some of the files, or those that are made last, with their purposes."""
    present = [*files, *MADE_LAST]
    return {
        pattern: words for pattern, words in PURPOSES.items() if any(fnmatchcase(path, pattern) for path in present)
    }
