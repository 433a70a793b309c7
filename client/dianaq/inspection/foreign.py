"""Files that are neither ONNX nor weights, told by their content: what they are, and what makes ONNX of them.

Plain Python.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib

SAVE_STATE_DICT = "save the weights alone with torch.save(network.state_dict(), path), or as safetensors"

EXPORT = 'torch.onnx.export(model.eval(), (x,), "net.onnx", external_data=False), where x is an example of its input,'

HEAD_BYTES = 512
"""What a file is told by; the signature of a tar archive is the last one in it, at 257."""

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises for damaged or encrypted members, and for names and numbers that it cannot read."""

_MAX_MEMBERS = 10_000
"""Looked at in a zip archive; a network of a thousand layers has some ten for each."""

_CONVERT = "python -m tf2onnx.convert"

_KERAS = f"{_CONVERT} --keras FILE --output net.onnx, or model.export('net.onnx', format='onnx') of Keras 3, makes ONNX"
_SAVED_MODEL = f"{_CONVERT} --saved-model FOLDER --output net.onnx makes ONNX of its folder"
_TORCHSCRIPT = (
    f"{EXPORT} makes ONNX of the model that it was made from; or of this, as model = torch.jit.load(FILE), with "
    "dynamo=False in place of external_data"
)
_EXPORTED = 'torch.onnx.export(torch.export.load(FILE), (x,), "net.onnx", external_data=False) makes ONNX of it'
FOLDER = f"the model file is a folder; a network is one file: {_SAVED_MODEL}, if it is a SavedModel of TensorFlow"
_UNPACK = "unpack it, and give the model in it"

_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (
        4,
        b"TFL3",
        "a TensorFlow Lite model (.tflite)",
        f"{_CONVERT} --tflite FILE --output net.onnx makes ONNX of it; of a float model: quantised ones are refused",
    ),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes it (.h5)", f"{_KERAS} of a whole model, not of weights alone"),
    (0, b"\x1f\x8b", "compressed (gzip)", _UNPACK),
    (0, b"BZh", "compressed (bzip2)", _UNPACK),
    (0, b"\xfd7zXZ\0", "compressed (xz)", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x93NUMPY", "an array of numpy (.npy)", "ONNX is accepted as a network; data go into an npz file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "git lfs pull gets the file that it stands for"),
    (4, b"ORTM", "a model for onnxruntime alone (.ort)", "give the ONNX file that it was made from"),
)
"""Place, bytes, what the file is, what to do."""

_MEMBERS: tuple[tuple[str, str, str], ...] = (
    (r"(model\.weights\.h5|config\.json)", "a Keras model (.keras)", f"{_KERAS} of it"),
    (r".*\bsaved_model\.pb", "a zip of a TensorFlow SavedModel", f"unpack it; {_SAVED_MODEL}"),
    (
        r"[^/]+/models/.+|[^/]+/archive_format|(serialized_exported_program|archive_format|version)\.(json|txt)",
        "a program as torch.export.save writes it (.pt2)",
        _EXPORTED,
    ),
    (r"[^/]+/(constants\.pkl|code/.+)", "TorchScript, which holds a program", _TORCHSCRIPT),
    (
        r".*\.np[yz]",
        "a dataset (.npz), not a model",
        "give it as the dataset; the model is ONNX, or weights: " + SAVE_STATE_DICT,
    ),
    (r".*\.(onnx|tflite|h5|keras|pb|safetensors|pth?)", "a zip archive of other files", _UNPACK),
)
"""By what one of its members is called: what a zip archive is, what to do. The first one wins."""


def foreign(head: bytes, path: str | os.PathLike[str]) -> str | None:
    """What a file is and what makes ONNX of it, as a sentence; None for one that may be ONNX or weights.

    Args:
        head: its first bytes, `HEAD_BYTES` of them.
        path: of the file, where its head tells that it is a zip archive.
    """
    for place, magic, what, remedy in _SIGNATURES:
        if head[place:].startswith(magic):
            return f"the file is {what}; {remedy}"
    if head.startswith(b"PK"):
        return _archive(path)
    return _tensorflow(head) or _text(head)


def _archive(path: str | os.PathLike[str]) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except BROKEN_ZIP:
        return None  # which is said by who looks for weights in it
    if not names:
        return f"the file is an empty zip archive; ONNX is accepted, or weights: {SAVE_STATE_DICT}"
    for pattern, what, remedy in _MEMBERS if len(names) <= _MAX_MEMBERS else ():
        if any(re.fullmatch(pattern, name, re.DOTALL) for name in names):
            return f"the file is {what}; {remedy}"
    return None


def _tensorflow(head: bytes) -> str | None:
    """A GraphDef begins with its first node, a message in the place where ONNX has a number.

    A SavedModel has the number 1 there, and then a message that begins with another one where ONNX has a name.
    """
    if re.match(rb"\n[\x80-\xff]*[\0-\x7f]\n", head):
        return (
            "the file is a graph of TensorFlow (.pb); "
            f"{_CONVERT} --graphdef FILE --inputs x:0 --outputs y:0 --output net.onnx makes ONNX of it"
        )
    if re.match(rb"\x08\x01\x12[\x80-\xff]*[\0-\x7f]\n", head):
        return f"the file is part of a TensorFlow SavedModel (saved_model.pb); {_SAVED_MODEL}"
    return None


def _text(head: bytes) -> str | None:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.end < len(head) or error.start < len(head) - 3:  # else a character that the end cuts in two
            return None
        text = head[: error.start].decode()
    if not text or any(not (letter.isprintable() or letter in "\t\n\r\f") for letter in text):
        return None
    what = "JSON" if text.lstrip()[:1] in "{[" else "text"
    if text.lstrip()[:14].lower().startswith(("<!doctype html", "<html")):
        return "the file is a web page, as downloads give it that need a login; get the file itself"
    return f"the file is {what}; a network is given as ONNX: {EXPORT} makes it"
