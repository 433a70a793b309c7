"""Files of other formats are called by what they are, with what makes ONNX of them, wherever they are given."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from dianaq import _upload
from dianaq.cli.options import check_model_file
from dianaq.errors import InvalidModel
from dianaq.inspection import file_format, inspect_model, inspect_upload, inspect_weights
from dianaq.schemas.spec import JobSpec

from .onnx_samples import classifier
from .weights_samples import MEMBERS, archive, safetensors, with_members


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return buffer.getvalue()


GRAPH_DEF = b"\n\x1d\n\x01x\x12\x0bPlaceholder" + b"*\x0b\n\x05dtype\x12\x020\x01" + b"\n\x05\n\x01y\x12\x00"
LONG_GRAPH_DEF = b"\n\x9d\x02\n\x01x\x12\x05Const" + b"x" * 300
SAVED_MODEL = b"\x08\x01\x12\xa4\x05\n\x6f\x0a\x6d" + b"\x22\x05serve" * 40

FOREIGN: dict[str, tuple[bytes, list[str]]] = {
    "tflite": (b"\x1c\0\0\0TFL3\x14\0\x20\0" + b"\0" * 90, ["TensorFlow Lite", "tf2onnx.convert --tflite FILE"]),
    "h5": (b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0" * 4, ["Keras", "(.h5)", "--keras FILE --output net.onnx"]),
    "keras": (
        zipped("metadata.json", "config.json", "model.weights.h5"),
        ["a Keras model (.keras)", "tf2onnx.convert --keras FILE", "model.export('net.onnx', format='onnx')"],
    ),
    "SavedModel, zipped": (
        zipped("net/", "net/saved_model.pb", "net/variables/variables.index"),
        ["a zip of a TensorFlow SavedModel", "unpack it", "--saved-model FOLDER"],
    ),
    "SavedModel": (SAVED_MODEL, ["part of a TensorFlow SavedModel", "--saved-model FOLDER"]),
    "frozen graph": (GRAPH_DEF, ["a graph of TensorFlow", "--graphdef FILE --inputs x:0 --outputs y:0"]),
    "frozen graph of a long node": (LONG_GRAPH_DEF, ["a graph of TensorFlow"]),
    "TorchScript": (with_members(**{"net/constants.pkl": b"x"}), ["TorchScript", "torch.jit.load(FILE)"]),
    "TorchScript, code": (with_members(**{"net/code/__torch__/a.py": b"x"}), ["TorchScript", "torch.onnx.export("]),
    "pt2": (zipped("a/archive_format", "a/models/model.json"), ["(.pt2)", "torch.export.load(FILE)"]),
    "pt2 of old": (zipped("serialized_exported_program.json", "version"), ["(.pt2)", "torch.export.load(FILE)"]),
    "npz": (zipped("x_train.npy", "y_train.npy"), ["a dataset (.npz), not a model", "as the dataset"]),
    "zip": (zipped("net/a.txt", "net/final.onnx"), ["a zip archive of other files", "unpack it"]),
    "empty zip": (zipped(), ["an empty zip archive", "ONNX is accepted"]),
    "gzip": (b"\x1f\x8b\x08\x08" + b"x" * 30, ["gzip", "unpack it"]),
    "bzip2": (b"BZh91AY&SY", ["bzip2", "unpack it"]),
    "xz": (b"\xfd7zXZ\0\0\x04", ["xz", "unpack it"]),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04", ["7z", "unpack it"]),
    "tar": (b"net.onnx".ljust(257, b"\0") + b"ustar\x0000", ["tar", "unpack it"]),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr'", ["numpy", "npz"]),
    "ort": (b"\x20\0\0\0ORTM\0\0\0\0", ["onnxruntime", "the ONNX file that it was made from"]),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", ["git lfs pull"]),
    "JSON": (b'{"format": "layers-model"}', ["is JSON", "torch.onnx.export("]),
    "text": ("model = résumé()\n".encode() * 60, ["is text", "torch.onnx.export("]),
    "text that the head cuts in a letter": (b"x" * 511 + "é".encode() * 4, ["is text"]),
    "web page": (b"\n<!DOCTYPE html><html><body>Log in", ["a web page", "get the file itself"]),
    "pickle": (b"\x80\x02}q\x00.", ["a pickle", "torch.save(network.state_dict(), path)", "torch.onnx.export("]),
    "pickled module": (
        with_members(**{"net/data.pkl": b"\x80\x02c__main__\nNet\n)\x81}(X\x08\x00\x00\x00_modules}ub."}),
        ["a pickled module", "torch.onnx.export(", "torch.save(network.state_dict(), path)"],
    ),
}


@pytest.fixture(params=FOREIGN)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[str]]:
    data, words = FOREIGN[request.param]
    path = tmp_path / "misleading.onnx"
    path.write_bytes(data)
    return path, words


def test_an_upload_is_called_by_what_it_is(case: tuple[Path, list[str]]) -> None:
    path, words = case
    with pytest.raises(InvalidModel) as caught:
        inspect_upload(path)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert len(caught.value.detail) < 600


def test_it_is_called_the_same_before_it_is_sent_and_by_commands(case: tuple[Path, list[str]]) -> None:
    path, _ = case
    with pytest.raises(InvalidModel) as expected:
        inspect_weights(path)
    with pytest.raises(InvalidModel) as sent:
        _upload.check_model(path)
    assert sent.value.detail == f"{path}: {expected.value.detail}"
    with pytest.raises(InvalidModel) as commanded:
        check_model_file(JobSpec(model="m", dataset="d"), path)
    assert commanded.value.detail == expected.value.detail


def test_onnx_and_weights_pass(tmp_path: Path) -> None:
    path = tmp_path / "misleading.keras"
    for data, format in (
        (classifier().SerializeToString(), "onnx"),
        (archive(MEMBERS), "pytorch"),
        (safetensors(), "safetensors"),
    ):
        path.write_bytes(data)
        assert file_format(path) == format


@pytest.mark.parametrize("ir_version", range(3, 14))
def test_no_version_of_onnx_passes_for_another_format(tmp_path: Path, ir_version: int) -> None:
    model = classifier()
    model.ir_version = ir_version
    for producer in ("", "pytorch", "\n", "tf2onnx" * 30):
        model.producer_name = producer
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        assert file_format(path) == "onnx"


@pytest.mark.parametrize("data", [safetensors(), archive(MEMBERS)])
def test_weights_where_a_network_must_be_say_how_to_export(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(data)
    for refused in (lambda: inspect_model(path), lambda: check_model_file(JobSpec(model="m", dataset="d"), path)):
        with pytest.raises(InvalidModel, match=r"holds weights .*torch\.onnx\.export\(model\.eval\(\)"):
            refused()


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"is a folder; a network is one file: .* --saved-model FOLDER"):
        file_format(tmp_path)
