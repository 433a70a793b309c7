"""The file of a checkpoint: a header of JSON text and plain tensors, written by `torch.save` without any class.

`{"format": 1, "header": text, "tensors": [...]}`. The header has the networks (see `records`), the iteration, where
the network comes from (`Origin`) and the versions of what wrote it. The same network gives the same bytes.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, fx

from dianaq import __version__
from dianaq.errors import InvalidModel
from dianaq.inspection.interface import Own
from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.events import ITERATIONS, Iteration
from dianaq.schemas.spec import NetworkPart, Preprocessing, TaskName
from dianaq_quant.checkpoint.records import read, write

FORMAT = 1
"""Version of the file's structure; raised when a reader of the former one would misread it."""

_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError, EOFError, UnpicklingError)
"""What torch, JSON, pydantic and fx raise over bytes that `save` has not written."""


class Origin(BaseModel):
    """What a network was made from and for: what a job that starts from it is checked against.

    Args:
        input_shape: without the batch.
        own, given: the input and the output as the float network had them before its import, where they are others.
        model: the job's `model`: the name of a file, or the description of a zoo network.
        pixels: whether the network takes pixels, once it is quantised.
        model_sha256: of the model's (or its weights') file, if there is one.
        part: what of the file's network it is; None for all of it.
        quantisers: the recipe's, as plain data: its functions need not be registered where it is only read.
        substitute: what its activations were replaced by, by kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_shape: tuple[int, ...]
    own: Own | None = None
    given: Own | None = None
    task: TaskName
    preprocessing: Preprocessing
    mapping: CoreMapping
    quantisers: dict[str, Any]
    substitute: dict[str, str] = {}
    pixels: bool = False
    seed: int
    model: str | dict[str, Any]
    model_sha256: str | None
    part: NetworkPart | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A network after an iteration, in evaluation mode.

    `teacher` is the float network (that before a substitution), which later iterations may be distilled from.
    `versions` are those of dianaq and torch that wrote the file.
    """

    iteration: Iteration
    network: fx.GraphModule
    teacher: fx.GraphModule
    origin: Origin
    versions: dict[str, str]


def save(
    network: fx.GraphModule,
    path: Path,
    *,
    iteration: Iteration,
    origin: Origin,
    teacher: fx.GraphModule | None = None,
) -> None:
    """Write a checkpoint; a file of that name is replaced at once or not at all.

    What observers have seen and the converters' noise are no part of it: every iteration observes anew, and noise is
    for training.

    Args:
        teacher: the float network, so that one file is all that a job starts from; not needed after `float`.

    Raises:
        QuantisationError: the network has a module or a node that a checkpoint cannot hold; names it.
    """
    networks = {"network": network}
    if iteration != "float":
        if teacher is None:
            raise ValueError(f"a checkpoint of {iteration} takes the float network along: give teacher")
        networks["float"] = teacher
    description, tensors = write(networks)
    header = {
        "iteration": iteration,
        "versions": {"dianaq": __version__, "torch": torch.__version__},
        "origin": origin.model_dump(mode="json"),
        "networks": description,
    }
    # One string for all but the tensors: pickle would write equal strings by reference or not as chance has it.
    content = {"format": FORMAT, "header": json.dumps(header), "tensors": tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # temporary files are private
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Nothing in the file is executed.

    Raises:
        InvalidModel: the file is missing, damaged, no checkpoint or of another version; or it needs a module class or
            a quantiser function that is not registered.
    """
    header, tensors = _read_file(path)
    try:
        iteration = header["iteration"]
        if iteration not in ITERATIONS:
            raise ValueError(f"no iteration is called {iteration!r}")
        networks = read(header["networks"], tensors)
        network = networks["network"]
        teacher = copy.deepcopy(network).requires_grad_(False) if iteration == "float" else networks["float"]
        origin = Origin.model_validate(header["origin"])
        return Checkpoint(iteration, network, teacher, origin, dict(header["versions"]))
    except _DAMAGES as error:
        raise _damaged(path, error) from error


def _read_file(path: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """The header and the tensors of a file of this version."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:  # torch does not look at the checksums
                raise ValueError(f"the checksum of {member!r} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, header, tensors = content["format"], content["header"], content["tensors"]
        if version == FORMAT:
            return json.loads(header), list(tensors)
    except OSError as error:
        raise InvalidModel(f"the checkpoint {path} cannot be read: {error.strerror}", param="start_from") from None
    except (*_DAMAGES, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    raise InvalidModel(
        f"the checkpoint {path} has the format {version!r}; this version of dianaq reads {FORMAT}", param="start_from"
    )


def _damaged(path: Path, error: Exception) -> InvalidModel:
    reason = " ".join(str(error).split())[:200]
    return InvalidModel(f"{path} is no checkpoint, or a damaged one: {reason}", param="start_from")
