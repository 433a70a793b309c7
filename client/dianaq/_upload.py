"""Files on their way to the service: a look at the first bytes, then the body as a stream."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dianaq.errors import InvalidDataset, InvalidModel, MissingExtra, from_problem
from dianaq.inspection.formats import data_file, file_format
from dianaq.inspection.weights import inspect_weights
from dianaq.schemas.resources import Model, ModelInfo
from dianaq.schemas.spec import JobSpec

CHUNK_BYTES = 2**18
"""A quarter MiB: few calls per upload, and a progress bar that moves."""

_ZIP = b"PK\x03\x04"


def check_model(path: Path) -> None:
    """Refuse a weights file that cannot be used, and what is no ONNX file at first sight; the service looks again.

    Raises:
        InvalidModel: names the file.
    """
    try:
        if file_format(path) != "onnx":
            inspect_weights(path)
    except InvalidModel as error:
        raise InvalidModel(f"{path}: {error.detail}", param=error.param) from None


def check_whole(spec: JobSpec, model: Model) -> None:
    """Refuse a job of a whole network that is taken in parts at most, before its dataset is uploaded.

    Raises:
        InvalidModel, UnsupportedOperator: as the service would.
    """
    if spec.part is None and isinstance(model.info, ModelInfo) and model.info.refusal is not None:
        raise from_problem(model.info.refusal)


def open_model(path: Path) -> BinaryIO:
    """A model file to be read; where it keeps weights in a file beside it, with them inside.

    Raises:
        InvalidModel: those weights cannot be put into it; names the file.
        MissingExtra: that needs the extra `inspection`.
    """
    beside = data_file(path)
    # Text inside a model may look like the name of such a file; without onnx, only a file that is there counts.
    if beside is None:
        return path.open("rb")
    try:
        from dianaq.inspection.external import joined
    except ModuleNotFoundError:
        if "/" in beside or "\0" in beside or not (path.parent / beside).is_file():
            return path.open("rb")
        raise MissingExtra(
            f"{path} keeps its weights in the file {beside!r} beside it: export with "
            'torch.onnx.export(..., external_data=False), or have them put together: pip install "dianaq[inspection]"'
        ) from None
    try:
        content = joined(path)
    except InvalidModel as error:
        raise InvalidModel(f"{path}: {error.detail}", param=error.param) from None
    return path.open("rb") if content is None else io.BytesIO(content)


def check_dataset(path: Path) -> None:
    """Refuse what is no npz file at first sight; the service looks at the rest.

    Raises:
        InvalidDataset: names the file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InvalidDataset(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        raise InvalidDataset(f"{path} is empty")
    if not head.startswith(_ZIP):
        hint = "; store it with numpy.savez(path, x_train=...)" if head.startswith(b"\x93NUMPY") else ""
        raise InvalidDataset(f"{path} is not an npz archive{hint}")


def body(file: BinaryIO, size: int, what: str) -> Iterator[bytes]:
    """The first `size` bytes of a file in chunks, behind a progress bar when a person watches."""
    from dianaq._display import progress_bar  # tqdm is not needed by programs that nobody watches

    bar = progress_bar(total=size, desc=f"upload {what}", unit="B", unit_scale=True, unit_divisor=1024)
    try:
        left = size
        while left and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
            if bar is not None:
                bar.update(len(chunk))
    finally:
        if bar is not None:
            bar.close()
