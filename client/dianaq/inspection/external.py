"""Weights that an ONNX file keeps in files beside it, put into the file: nothing is sent in pieces.

Where a tensor's data lie is text from the file, which anybody may have written. So only plain files of the same folder
are opened, and nothing is read before everything that would be read is known to be small enough.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from dianaq.errors import InvalidModel
from dianaq.inspection.constants import type_name
from dianaq.inspection.formats import MAX_BYTES, data_file
from dianaq.inspection.model import parse_model

_EXTERNAL = onnx.TensorProto.EXTERNAL

_WHOLE_BYTES = frozenset(
    onnx.TensorProto.DataType.Value(name)
    for name in (
        *("FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE", "UINT32"),
        *("UINT64", "COMPLEX64", "COMPLEX128", "BFLOAT16"),
    )
)
"""Types whose values take whole bytes each. No weight of a network to quantise is of another one."""


@dataclass(frozen=True)
class _Range:
    """Bytes of a file that belong to a tensor."""

    tensor: onnx.TensorProto
    location: str
    offset: int
    length: int


@contextmanager
def self_contained(path: Path) -> Iterator[Path]:
    """A file with all weights inside it: the file itself, or for as long as the block lasts one of the same name.

    Raises:
        InvalidModel: see `joined`.
    """
    content = joined(path)
    if content is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_bytes(content)
        yield file


def joined(path: Path) -> bytes | None:
    """A file's content with the weights of its neighbours inside; None if it has none in other files.

    Raises:
        InvalidModel: names the tensor and its file, and what would be accepted.
    """
    if data_file(path) is None:
        return None
    model = parse_model(path)
    if not join(model, path):
        return None
    return bytes(model.SerializeToString(deterministic=True))


def join(model: onnx.ModelProto, path: Path) -> bool:
    """Put the weights of a parsed file's neighbours into the model; false if it has none.

    Args:
        path: where the model comes from. Only files in its folder are opened.

    Raises:
        InvalidModel: a tensor's data lie elsewhere, or not whole where it says, or all together are too large.
    """
    ranges = [_range_of(tensor) for tensor in tensors_of(model.graph, model.functions) if _is_external(tensor)]
    total = path.stat().st_size + sum(one.length for one in ranges)
    if total > MAX_BYTES:
        raise InvalidModel(
            f"the model file has {total:,} bytes with the weights in the files beside it; at most {MAX_BYTES:,} are "
            "accepted"
        )
    with ExitStack() as opened:
        files: dict[str, int] = {}
        for one in ranges:
            if one.location not in files:
                descriptor = _open(path, one)
                opened.callback(os.close, descriptor)
                files[one.location] = descriptor
        for one in ranges:
            _check_extent(one, os.fstat(files[one.location]).st_size)
        for one in ranges:
            _fill(one, files[one.location])
    return bool(ranges)


def tensors_of(graph: onnx.GraphProto, functions: Iterable[onnx.FunctionProto] = ()) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph stores: initialisers and attributes of nodes, in the graphs inside it as well."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for nodes in (graph.node, *(function.node for function in functions)):
        for node in nodes:
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    yield from tensors_of(inner)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                yield from (attribute.t, *attribute.tensors)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == _EXTERNAL)


def _range_of(tensor: onnx.TensorProto) -> _Range:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or location in (".", "..") or {"/", "\\", "\0"} & set(location):
        raise _refused(
            tensor,
            f"keeps its data in {location!r}; only a file in the folder of the model is read, named without a path",
        )
    if tensor.data_type not in _WHOLE_BYTES:
        raise _refused(tensor, f"in {location!r} is {type_name(tensor.data_type)}; weights must be float32")
    if any(dim < 0 for dim in tensor.dims):
        raise _refused(tensor, f"has a negative dimension: {list(tensor.dims)}")
    needed = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    offset, length = (_count(tensor, entries, name, default) for name, default in (("offset", 0), ("length", needed)))
    if length != needed:
        shape = list(tensor.dims)
        raise _refused(tensor, f"of shape {shape} takes {needed:,} bytes; {location!r} has {length:,} of it")
    return _Range(tensor, location, offset, length)


def _count(tensor: onnx.TensorProto, entries: dict[str, str], name: str, default: int) -> int:
    text = entries.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 18:  # below 2^63, which is all that a file may have
        raise _refused(tensor, f"has the {name} {text[:40]!r} in {entries['location']!r}; it takes a number of bytes")
    return int(text)


def _open(path: Path, one: _Range) -> int:
    """A descriptor of a plain file that lies in the folder itself, whatever links lead to it."""
    folder = path.resolve().parent
    try:
        found = (folder / one.location).resolve(strict=True)
        if found.parent != folder:
            raise _refused(
                one.tensor,
                f"keeps its data in {one.location!r}, a link to {found}; only files in the folder itself are read",
            )
        # What is no file (a pipe, say) must not be waited for, and what has become a link must not be followed.
        descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(
            one.tensor,
            f"keeps its data in {one.location!r}, which cannot be read: {error.strerror}; put it beside {path.name}, "
            "or export with torch.onnx.export(..., external_data=False)",
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(one.tensor, f"keeps its data in {one.location!r}, which is no file")
    return descriptor


def _check_extent(one: _Range, size: int) -> None:
    if one.offset + one.length > size:
        raise _refused(
            one.tensor,
            f"takes bytes {one.offset:,} to {one.offset + one.length:,} of {one.location!r}, which has {size:,}: it is "
            "truncated, or of another model",
        )


def _fill(one: _Range, descriptor: int) -> None:
    data = os.pread(descriptor, one.length, one.offset)
    if len(data) != one.length:
        raise _refused(one.tensor, f"could not be read from {one.location!r}, which has become shorter")
    for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        one.tensor.ClearField(name)
    one.tensor.ClearField("external_data")
    one.tensor.ClearField("data_location")
    one.tensor.raw_data = data


def _refused(tensor: onnx.TensorProto, why: str) -> InvalidModel:
    return InvalidModel(f"tensor {tensor.name!r} {why}", param=tensor.name or None)
