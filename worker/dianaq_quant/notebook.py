"""The library from a notebook: quantise a network that is at hand, with data that are at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx, nn

from dianaq.errors import InvalidDataset, InvalidModel, InvalidSpec
from dianaq.inspection.external import self_contained
from dianaq.schemas.events import EventBody, Stage
from dianaq.schemas.spec import ZooModel, checkpoint_of, parse_spec
from dianaq_quant.graph import Editor
from dianaq_quant.importers import Operators
from dianaq_quant.pipeline import run

Arrays = Mapping[str, np.ndarray[Any, Any]]
"""`x_train` and so on, as a dataset file holds them."""


@dataclass(frozen=True)
class Quantised:
    """What a job left.

    `exact` computes real outputs as the chip computes them, and can be trained on; `integer` holds integers only.
    `report` is what `report.json` says, `folder` the bundle's.
    """

    exact: fx.GraphModule
    integer: fx.GraphModule
    report: dict[str, Any]
    folder: Path


def quantise(
    network: nn.Module | Path | str | ZooModel,
    data: Arrays | Path | str,
    out_dir: Path | str,
    *,
    input_shape: tuple[int, ...] | None = None,
    weights: Path | str | None = None,
    editors: Mapping[Stage, Sequence[Editor]] | None = None,
    operators: Operators | None = None,
    emit: Callable[[EventBody], None] = lambda body: None,
    **spec: Any,
) -> Quantised:
    """Run a whole job in this process, by the same pipeline as the service's.

    Args:
        network: any module that `torch.fx` can trace (it is not changed), the path of an ONNX file (its weights may lie
            in files beside it), or a zoo network.
        data: arrays, or the path of an npz file.
        out_dir: the bundle's folder; must not exist, or be empty.
        input_shape: shape of one sample of a module's input; default: that of the samples.
        weights: weights file of a zoo network; default: that which its `weights` names.
        editors: a user's own graph editors, which run before those of the stage that they are given for.
        operators: a user's own operators, which the import asks before it refuses anything.
        emit: receives what happens.
        spec: the other fields of a `JobSpec`: `recipe`, `preprocessing`, `substitute`, `mapping`, `task`...

    Raises:
        DianaqError: says what is wrong with the input, or which layer cannot be brought onto the chip.

    Example:
        >>> result = quantise(model, {"x_train": x, "y_train": y}, "out", recipe={"preset": "ptq"})
        >>> result.report["accuracy"]
    """
    if weights is not None and not isinstance(network, ZooModel):
        raise InvalidSpec(
            f"weights {str(weights)!r} is given, but only a ZooModel takes a weights file; this network "
            f"({type(network).__name__}) has its own",
            param="weights",
        )
    module = network if isinstance(network, nn.Module) else None
    file: Path | str | None
    if isinstance(network, ZooModel):
        file = weights or network.weights
        name: object = network.model_copy(update={"weights": None if file is None else str(file)})
    else:
        file = None if isinstance(network, nn.Module) else network
        name = type(network).__name__ if file is None else str(file)
    if file is not None and not Path(file).is_file():
        raise InvalidModel(f"there is no file {file}", param="network" if weights is None else "weights")
    job = parse_spec({"recipe": {"preset": "ptq"}, **spec, "model": name, "dataset": "data"})
    start = None if job.start is None else Path(job.start[0]) / checkpoint_of(job.start[1])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        path = _file(data, Path(folder))
        state = run(
            job,
            model_path=None if file is None else opened.enter_context(self_contained(Path(file))),
            dataset_path=path,
            out_dir=Path(out_dir),
            emit=emit,
            start_from=start,
            module=module,
            input_shape=input_shape or (_sample_shape(path) if module is not None else ()),
            editors=editors,
            operators=operators,
        )
    assert state.integer is not None
    return Quantised(state.network, state.integer.graph, state.report.as_json(), Path(out_dir))


def _file(data: Arrays | Path | str, folder: Path) -> Path:
    """The dataset as a file, which is inspected like an uploaded one.

    Raises:
        InvalidDataset: there is no such file, or an array holds objects.
    """
    if isinstance(data, Path | str):
        if not Path(data).is_file():
            raise InvalidDataset(f"there is no file {data}", param="data")
        return Path(data)
    path = folder / "data.npz"
    arrays = {name: np.asarray(array) for name, array in data.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise InvalidDataset(f"{name} is an array of Python objects; numbers are accepted", param=name)
    np.savez(path, **arrays)  # type: ignore[arg-type]  # to mypy one of them might be its allow_pickle
    return path


def _sample_shape(path: Path) -> tuple[int, ...]:
    with np.load(path, allow_pickle=False) as file:
        if "x_train" not in file:
            raise InvalidSpec("give input_shape: the data have no x_train to take it from", param="input_shape")
        shape: tuple[int, ...] = file["x_train"].shape[1:]
    return shape
