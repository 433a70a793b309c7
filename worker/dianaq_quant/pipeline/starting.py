"""What a checkpoint says of its origin, and whether a job can start from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dianaq.errors import InvalidSpec
from dianaq.inspection import check_interface
from dianaq.inspection.interface import Own
from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.quantisers import Quantisers
from dianaq.schemas.resources import DatasetInfo
from dianaq.schemas.spec import JobSpec, NetworkPart
from dianaq_quant.bundle.bundle import sha256
from dianaq_quant.bundle.report import versions
from dianaq_quant.checkpoint import Checkpoint, Origin
from dianaq_quant.importers import graph_interface
from dianaq_quant.kernels.build import library


def origin_of(
    spec: JobSpec,
    input_shape: tuple[int, ...],
    model_path: Path | None,
    start: Checkpoint | None = None,
    own: Own | None = None,
    given: Own | None = None,
) -> Origin:
    """The origin of a job's checkpoints; what was settled before the checkpoint that it starts from stays as it was."""
    origin = Origin(
        input_shape=input_shape,
        own=own,
        given=given,
        task=spec.task,
        preprocessing=spec.preprocessing,
        mapping=spec.mapping,
        quantisers=_plain(spec.recipe.quantisers),
        substitute={str(kind): str(other) for kind, other in spec.substitute.items()},
        pixels=spec.interface.input == "pixels",
        seed=spec.recipe.seed,
        model=_model(spec),
        model_sha256=None if model_path is None else sha256(model_path),
        part=spec.part,
    )
    if start is None:
        return origin
    kept = ["model", "model_sha256", "part", "substitute"]
    if start.iteration != "float":
        kept += ["pixels", *_SETTLED]
    return origin.model_copy(update={name: getattr(start.origin, name) for name in kept})


def identity(
    spec: JobSpec, model_path: Path | None, dataset_path: Path, start_from: Path | None, device: str
) -> dict[str, Any]:
    """All that a job's result follows from, as plain data; whoever differs in it may not go on from its snapshots."""
    files = {"model": model_path, "dataset": dataset_path, "start_from": start_from}
    return {
        "spec": spec.recorded(),
        "sha256": {name: None if path is None else sha256(path) for name, path in files.items()},
        "versions": versions(),
        "device": device,
        "threads": torch.get_num_threads(),
        "kernels": library() is not None,
    }


def check_start(start: Checkpoint, spec: JobSpec, model_path: Path | None, dataset: DatasetInfo) -> list[str]:
    """Refuse a job that cannot start from a checkpoint; give what its reader should know.

    Raises:
        InvalidSpec: another task, zoo network, part or model file (a zoo network's weights) than the checkpoint's, or
            cores or quantisers that it has settled. A job may leave the file out: the checkpoint has the network.
        InvalidDataset: the dataset does not fit its network, or as `check_fit` says.
    """
    origin = start.origin
    if spec.task != origin.task:
        raise InvalidSpec(f"the checkpoint is of a {origin.task} network, the job's task is {spec.task}", param="task")
    asked, made_of = _architecture(_model(spec)), _architecture(origin.model)
    if asked != made_of:
        raise InvalidSpec(
            f"the job's network is {_named(asked)}, but the checkpoint's is {_named(made_of)}; "
            "start from it with the same network",
            param="model",
        )
    if model_path is not None and (digest := sha256(model_path)) != origin.model_sha256:
        made = "without a model file" if origin.model_sha256 is None else f"from one with sha256 {origin.model_sha256}"
        raise InvalidSpec(
            f"the job's model file has the sha256 {digest}, but the checkpoint was made {made}; "
            "start from it with the same model",
            param="model",
        )
    if spec.part != origin.part:
        raise InvalidSpec(
            f"the job is of {_extent(spec.part)}, but the checkpoint of {_extent(origin.part)}; start from it with the "
            "same part",
            param="part",
        )
    if spec.substitute and spec.substitute != origin.substitute:
        wanted = _brief({str(kind): other for kind, other in spec.substitute.items()})
        raise InvalidSpec(
            f"substitute is {wanted}, but the checkpoint's network was made with "
            f"{_brief(origin.substitute) or 'none'}; leave it out, or start from the float network itself",
            param="substitute",
        )
    check_interface(spec, graph_interface(start.teacher, origin.input_shape, origin.own, origin.given), dataset)
    notes = [f"started from the network after {start.iteration}; the stages before were left out"]
    if spec.preprocessing != origin.preprocessing:
        notes.append(
            f"the preprocessing is {_brief(spec.preprocessing.model_dump())}, but the network was made with "
            f"{_brief(origin.preprocessing.model_dump())}"
        )
    if start.iteration != "float":
        _check_pixels(start, spec)
    for name in _SETTLED if start.iteration != "float" else ():
        notes += _check_settled(name, start, spec)
    return notes


_SETTLED = {"mapping": "mapping", "quantisers": "recipe.quantisers"}
"""Parts of a job that the iteration `fake_quantised` settles, and their names in its specification."""


def _check_pixels(start: Checkpoint, spec: JobSpec) -> None:
    """Whether pixels are fed is settled by the iteration `fake_quantised`, and how they are normalised then as well."""
    origin, pixels = start.origin, spec.interface.input == "pixels"
    if pixels != origin.pixels:
        accepted = "'pixels'" if origin.pixels else "'float' or 'int8'"
        raise InvalidSpec(
            f"interface.input is {spec.interface.input!r}, but the first layer of the checkpoint after "
            f"{start.iteration} takes {accepted}; set it to that, or start from an earlier iteration",
            param="interface.input",
        )
    if pixels and spec.preprocessing != origin.preprocessing:
        raise InvalidSpec(
            f"the preprocessing is {_brief(spec.preprocessing.model_dump())}, but that of the checkpoint after "
            f"{start.iteration} is part of its first layer, because pixels are fed: "
            f"{_brief(origin.preprocessing.model_dump())}; repeat it, or start from an earlier iteration",
            param="preprocessing",
        )


def _check_settled(name: str, start: Checkpoint, spec: JobSpec) -> list[str]:
    """A part that was settled may be left out of the job, or be repeated."""
    if name == "mapping":
        asked, default, kept = _plain(spec.mapping), _plain(CoreMapping()), _plain(start.origin.mapping)
    else:
        asked, default, kept = _plain(spec.recipe.quantisers), _plain(Quantisers()), start.origin.quantisers
    if asked not in (default, kept):
        raise InvalidSpec(
            f"{_SETTLED[name]} differs from that of the checkpoint after {start.iteration}, which is settled: "
            f"{_brief(kept)}; leave it out, or start from an earlier iteration (cores and quantisers can be chosen "
            "anew after float)",
            param=_SETTLED[name],
        )
    return [] if asked == kept else [f"{_SETTLED[name]} is that of the checkpoint: {_brief(kept)}"]


def _extent(part: NetworkPart | None) -> str:
    return "the whole network" if part is None else f"the part {part}"


def _model(spec: JobSpec) -> str | dict[str, Any]:
    model: str | dict[str, Any] = spec.model_dump(mode="json", by_alias=True)["model"]
    return model


def _architecture(model: str | dict[str, Any]) -> dict[str, Any] | None:
    """What a zoo network is, whatever its weights; None for a network from a file or from Python."""
    return None if isinstance(model, str) else {name: value for name, value in model.items() if name != "weights"}


def _named(architecture: dict[str, Any] | None) -> str:
    return "none of the zoo" if architecture is None else _brief(architecture)


def _plain(settings: CoreMapping | Quantisers) -> dict[str, Any]:
    return settings.model_dump(mode="json")


def _brief(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())[:400]
