"""The files beside an HTVM model: `input.npy` and `output.npy`, and no other npy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dianaq_quant.export.check.findings import Log
from dianaq_quant.export.check.graph import Array, Graph
from dianaq_quant.targets.diana.rules import Rule

MISSING = Rule("htvm.golden-missing", "rejected", "input.npy and output.npy beside the model")
TYPE = Rule("htvm.golden-type", "rejected", "input.npy and output.npy are int8 or float32")
SHAPE = Rule("htvm.golden-shape", "rejected", "input.npy and output.npy have the shapes of the model's ends")
STRAY = Rule("htvm.golden-stray", "wrong", "one folder per model: every npy in the folder is loaded")

NAMES = ("input.npy", "output.npy")


def check_golden(graph: Graph, log: Log) -> None:
    """Findings about the folder that a model lies in."""
    folder = graph.path.parent
    for name, ends in zip(NAMES, (graph.inputs, graph.outputs), strict=True):
        array = _read(folder / name, log)
        if array is None:
            continue
        if array.dtype not in (np.int8, np.float32):
            log.add(TYPE, name, f"it holds {array.dtype}")
        wanted = graph.shape(ends[0]) if ends else None
        if wanted is not None and array.shape != wanted:
            log.add(SHAPE, name, f"it has the shape {list(array.shape)}, the model's is {list(wanted)}")
    for path in sorted(folder.glob("*.npy")):
        if path.name not in NAMES:
            log.add(STRAY, path.name, f"HTVM would load {path.name} too")


def _read(path: Path, log: Log) -> Array | None:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        log.add(MISSING, path.name, f"there is no {path.name} that can be read")
    except ValueError as error:
        log.add(TYPE, path.name, f"it is no array: {error}")
    else:
        return array
    return None
