"""Trained weights for a network of the zoo, or of the user's."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dianaq.errors import InvalidModel
from dianaq.inspection import inspect_weights

CONTAINERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts commonly store the tensors of a checkpoint."""

COUNTER = "num_batches_tracked"
"""A BatchNorm's counter of training steps. It changes nothing in evaluation, and old files lack it."""


def load_weights(network: nn.Module, path: Path) -> list[str]:
    """Load a network's parameters and buffers, in place.

    Args:
        network: what the tensors are for; their names are those of its `state_dict`.
        path: a safetensors file; or a state dict as `torch.save` writes it, or a checkpoint that holds one under
            `state_dict`, `model` or `model_state_dict`; which of them shows in the content, not in the name. A prefix
            `module.` (of `DataParallel`) is removed.

    Returns:
        Notes on what was found elsewhere, renamed or left out.

    Raises:
        InvalidModel: the file cannot be read, or a tensor is missing, unexpected, of another shape, not float32, or
            not finite; names the file or the tensor, and what is accepted.
    """
    if not path.is_file():
        raise InvalidModel(f"there is no file {path}", param=path.name)
    notes: list[str] = []
    try:
        format = inspect_weights(path).format  # before anything is unpickled
    except InvalidModel as error:
        raise InvalidModel(f"{path.name}: {error.detail}", param=error.param or path.name) from None
    found = _read_safetensors(path) if format == "safetensors" else _read_checkpoint(path, notes)
    wanted = network.state_dict()
    if found and all(name.startswith("module.") for name in found) and not set(found) <= set(wanted):
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
        notes.append("the prefix 'module.' of all tensors was removed")
    _check_names(found, wanted)
    for name, tensor in found.items():
        _check_tensor(name, tensor, wanted[name])
    network.load_state_dict(wanted | found)
    return notes


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise InvalidModel(f"{path.name} is no complete safetensors file: {error}", param=path.name) from error


def _read_checkpoint(path: Path, notes: list[str]) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:  # of a path, torch.load looks at the suffix
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, for a pickle that is damaged
        raise InvalidModel(
            f"{path.name} cannot be read ({(str(error) or type(error).__name__).splitlines()[0]}); "
            "torch.save(network.state_dict(), path) makes what is accepted",
            param=path.name,
        ) from error
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            notes.append(f"the tensors are those under {key!r}")
            break
    if not isinstance(content, dict) or not content:
        raise InvalidModel(
            f"{path.name} holds a {type(content).__name__}; a dictionary from names to tensors is accepted, also under "
            f"one of the keys {', '.join(CONTAINERS)}",
            param=path.name,
        )
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InvalidModel(f"{path.name}: {name!r} is a {type(tensor).__name__}, not a tensor", param=str(name))
    return dict(content)


def _check_names(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    missing = [name for name in wanted if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in wanted]
    if missing or unexpected:
        parts = [f"{kind} {_few(names)}" for kind, names in (("missing", missing), ("unexpected", unexpected)) if names]
        raise InvalidModel(
            f"the file's tensors do not fit the network: {'; '.join(parts)}; "
            f"the network's own are {_few(list(wanted))}",
            param=(missing or unexpected)[0],
        )


def _few(names: list[str]) -> str:
    """Names for a message: all of few, or the first ones and how many follow."""
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(repr, names[:4])) + rest


def _check_tensor(name: str, tensor: Tensor, wanted: Tensor) -> None:
    """Raises `InvalidModel` for a tensor that the network cannot take. The shape is looked at before the values."""
    if tensor.shape != wanted.shape:
        raise InvalidModel(f"{name} has the shape {tuple(tensor.shape)}; {tuple(wanted.shape)} is accepted", param=name)
    integers = wanted.dtype == torch.int64
    if tensor.dtype != wanted.dtype and not (integers and tensor.dtype == torch.int32):
        raise InvalidModel(f"{name} is {tensor.dtype}; {wanted.dtype} is accepted", param=name)
    if not integers and not bool(torch.isfinite(tensor).all()):
        raise InvalidModel(f"{name} holds NaN or infinity; finite numbers are accepted", param=name)
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise InvalidModel(f"{name} holds a negative variance ({float(tensor.min())})", param=name)
