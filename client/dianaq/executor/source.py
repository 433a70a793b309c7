"""What two networks are compared from: a bundle, as its folder or its zip, or one of its ONNX files."""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dianaq.errors import InvalidModel
from dianaq.executor.files import is_text, read_input
from dianaq.executor.model import IntegerModel, load_model
from dianaq.inspection.formats import MAX_BYTES

_MODEL = "htvm/model.onnx"
"""Of a bundle, the file that is compared: it has all that the chip computes, converters and input included."""

_MEMBERS = (_MODEL, "htvm/input.npy", "report.json")


@dataclass(frozen=True)
class Source:
    """A network, the user's layers by its tensors where a report names them, and its golden input if it has one."""

    name: str
    model: IntegerModel
    layers: dict[str, str]
    golden: NDArray[Any] | None
    golden_is_quantised: bool


def open_source(path: Path) -> Source:
    """A network from a bundle's folder, a `bundle.zip`, or an ONNX file.

    Raises:
        InvalidModel: there is nothing at the path, or no network in it.
    """
    if path.is_dir():
        if not (path / _MODEL).is_file():
            raise InvalidModel(f"{path} is no bundle: it has no {_MODEL}; accepted are bundles and ONNX files")
        return _from_file(path / _MODEL, str(path))
    if path.is_file() and zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory() as folder:
            _unpack(path, Path(folder))
            return _from_file(Path(folder) / _MODEL, str(path))
    if not path.is_file():
        raise InvalidModel(f"there is no {path}; accepted are bundles and ONNX files")
    return _from_file(path, str(path))


def _unpack(path: Path, folder: Path) -> None:
    """The members that are needed, under names of our own."""
    with zipfile.ZipFile(path) as archive:
        found = {info.filename: info for info in archive.infolist() if info.filename in _MEMBERS}
        if _MODEL not in found:
            raise InvalidModel(f"{path} is no bundle: it has no {_MODEL}; accepted are bundles and ONNX files")
        for name, info in found.items():
            if info.file_size > MAX_BYTES:
                raise InvalidModel(f"{path}: {name} has {info.file_size:,} bytes; at most {MAX_BYTES:,} are accepted")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(info))


def _from_file(path: Path, name: str) -> Source:
    """A network, and what lies around it: its golden input beside it, the report above its folder."""
    model = load_model(path)
    beside = (path.parent / "input.npy", path.parent / "input.txt")
    golden = next((file for file in beside if file.is_file()), None)
    return Source(
        name,
        model,
        _layers(path.parent.parent / "report.json", path.parent.name),
        None if golden is None else read_input(golden),
        golden is not None and is_text(golden),
    )


def _layers(report: Path, dialect: str) -> dict[str, str]:
    """The map of a report from the tensors of a dialect's file to the user's layers; empty where there is none."""
    if not report.is_file():
        return {}
    try:
        found = json.loads(report.read_bytes())["tensors"][dialect]
    except (ValueError, LookupError, TypeError):  # no report of a bundle, or one without the map
        return {}
    return {str(tensor): str(layer) for tensor, layer in found.items()} if isinstance(found, dict) else {}
