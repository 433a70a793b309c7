"""Snapshots: where each training of a job is after its last epoch, so that a job that died goes on from there.

A folder has one file for each training, `<name>.pt`, which is replaced after every epoch: a header of JSON text and
plain tensors, read without executing anything. What comes before a training is done again, because it takes seconds and
gives the same network each time; a file says which network that was.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, fx

from dianaq.schemas.events import EventBody, LogBody

FORMAT = 1
"""Version of the file's structure; a snapshot of another one is of no use."""

_DAMAGES = (
    ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError, EOFError, UnpicklingError,
    zipfile.BadZipFile,
)  # fmt: skip
"""What torch and JSON raise over bytes that `save` has not written."""

_SHOWN = 3
"""Differences between two jobs that are named; a word on each fills a line."""


@dataclass(frozen=True)
class Snapshot:
    """The place of one training's snapshot.

    Args:
        identity: what the job is computed from and with, as plain data. Another job's snapshot is ignored.
        tell: receives what a person should know about the resumption; it is no part of the job's result.
    """

    path: Path
    identity: dict[str, Any]
    tell: Callable[[EventBody], None]

    def save(self, start: str, plain: dict[str, Any], tensors: dict[str, Any]) -> None:
        """Write a snapshot: the former one is replaced at once or not at all, also if the machine stops.

        Args:
            start: digest of the network before this training.
            plain: what JSON can hold.
            tensors: tensors, in nested dicts and lists.

        Raises:
            FileNotFoundError: the folder is gone, as nobody wants the job's snapshots any more.
        """
        header = json.dumps({"identity": self.identity, "start": start, "plain": plain})
        content = {"format": FORMAT, "header": header, "tensors": tensors}
        for left in self.path.parent.glob(f".{self.path.name}-*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=f".{self.path.name}-", delete=False) as file:
            try:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(self.path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def load(self, start: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """What `save` was given as `plain` and `tensors`; None where there is no snapshot of this training of this job.

        Args:
            start: digest of the present network, which must be the one that the training began with.
        """
        try:
            header, tensors = _read(self.path)
        except FileNotFoundError:
            return None
        except (OSError, *_DAMAGES) as error:
            self._ignore(f"it is damaged, or none: {' '.join(str(error).split())[:200]}")
            return None
        if differences := list(_differences(header["identity"], self.identity)):
            more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
            self._ignore(f"it is of another job: {'; '.join(differences[:_SHOWN])}{more}")
            return None
        if header["start"] != start:
            self._ignore("its training began with another network than this one")
            return None
        return header["plain"], tensors

    def _ignore(self, why: str) -> None:
        self.tell(LogBody(level="warning", message=f"the snapshot {self.path} is ignored: {why}"))


@dataclass(frozen=True)
class Snapshots:
    """The folder of a job's snapshots; see `Snapshot`."""

    folder: Path
    identity: dict[str, Any]
    tell: Callable[[EventBody], None]

    def of(self, training: str) -> Snapshot:
        """The place of a training's snapshot."""
        return Snapshot(self.folder / f"{training}.pt", self.identity, self.tell)


def digest(network: fx.GraphModule) -> str:
    """Hex digest of a network: its graph, and the names and values of its parameters and buffers."""
    found = hashlib.sha256(network.code.encode())
    for name, value in network.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def random_state() -> dict[str, Tensor]:
    """The states of torch's own random numbers, on every device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_state(states: dict[str, Tensor]) -> None:
    """Go on with the random numbers of a state that `random_state` gave."""
    for device, state in states.items():
        if device == "cpu":
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, device)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        if (member := archive.testzip()) is not None:  # torch does not look at the checksums
            raise ValueError(f"the checksum of {member!r} is wrong")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, and not {FORMAT}")
    header = json.loads(content["header"])
    return {name: header[name] for name in ("identity", "start", "plain")}, dict(content["tensors"])


def _differences(theirs: Any, ours: Any, where: str = "") -> Iterator[str]:
    """`seed is 1 there, 0 here`, for every place in plain data where they differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted({*theirs, *ours}):
            yield from _differences(theirs.get(name), ours.get(name), f"{where}.{name}" if where else name)
    elif theirs != ours:
        yield f"{where} is {_brief(theirs)} there and {_brief(ours)} here"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else f"{text[:17]}..."
