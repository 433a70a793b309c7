"""What inspection finds in weights files, and that each bad one is refused by the name of what is wrong."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from dianaq.errors import InvalidModel
from dianaq.inspection import file_format, inspect_model, inspect_upload, inspect_weights
from dianaq.inspection.pickle_globals import check_globals

from .onnx_samples import classifier, save
from .weights_samples import (
    COUNTER,
    MEMBERS,
    PICKLE,
    TENSORS,
    VALUES,
    archive,
    changed,
    one_tensor,
    safetensors,
    with_members,
)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "misleading.onnx"
    path.write_bytes(data)
    return path


def test_reports_what_a_safetensors_file_holds(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, **TENSORS}
    info = inspect_upload(write(tmp_path, safetensors(header)))
    assert info.model_dump() == {
        "format": "safetensors",
        "tensors": 3,
        "bytes": 28,
        "shapes": {"conv.weight": (2, 1, 1, 2), "fc.bias": (1,), "bn.num_batches_tracked": ()},
    }


def test_a_header_may_be_padded_and_in_any_order(tmp_path: Path) -> None:
    text = safetensors(dict(reversed(TENSORS.items())))[8 : -len(VALUES)]
    assert inspect_weights(write(tmp_path, safetensors(text + b"   "))).tensors == 3


def test_reports_what_a_state_dict_holds(tmp_path: Path) -> None:
    info = inspect_upload(write(tmp_path, archive()))
    assert info.model_dump() == {"format": "pytorch", "tensors": 2, "bytes": 20, "shapes": None}


NAN = struct.pack("<5fq", 1, -2, float("nan"), 0, 1, 7)
NEGATIVE_INFINITY = struct.pack("<5fq", 1, -2, 0.5, 0, float("-inf"), 7)
TWO = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": 1}'

BAD_SAFETENSORS: dict[str, tuple[bytes, list[str]]] = {
    "header longer than the file": (safetensors(length=5000), ["5,000 bytes", "the file has"]),
    "header of a terabyte": (safetensors(length=2**39), ["549,755,813,888 bytes", "1,048,576"]),
    "header beyond the cap": (safetensors(b"{" + b" " * 2**20 + b"}"), ["1,048,578 bytes", "at most 1,048,576"]),
    "no JSON": (safetensors(b"{'a': 1}"), ["header is not JSON"]),
    "deep JSON": (safetensors(b'{"a":' + b"[" * 100_000), ["header is not JSON"]),
    "no text": (safetensors(b"{\xff\xfe}"), ["header is not JSON"]),
    "a name twice": (safetensors(TWO, b"1234"), ["'a' occurs twice"]),
    "no tensors": (safetensors({"__metadata__": {}}, b""), ["holds no tensors"]),
    "no mapping": (safetensors({"a": [1]}, b""), ["'a'", "dtype, shape and data_offsets"]),
    "unknown field": (safetensors(changed("fc.bias", extra=1)), ["'fc.bias'", "dtype, shape and data_offsets"]),
    "float16": (one_tensor("F16", [2], 2), ["'w'", "'F16'", "F32 (float32)"]),
    "bfloat16": (one_tensor("BF16", [2], 2), ["'w'", "'BF16'"]),
    "dtype of another type": (safetensors(changed("fc.bias", dtype=["F32"])), ["'fc.bias'", "['F32']"]),
    "integer weights": (one_tensor("I32", [2, 2], 4), ["'w'", "I32 of shape [2, 2]", "only counters"]),
    "negative dimension": (safetensors(changed("fc.bias", shape=[-1])), ["'fc.bias'", "[-1]"]),
    "a dimension that is true": (safetensors(changed("fc.bias", shape=[True])), ["'fc.bias'", "[True]"]),
    "many dimensions": (safetensors(changed("fc.bias", shape=[1] * 9)), ["'fc.bias'", "at most 8"]),
    "huge shape": (safetensors(changed("fc.bias", shape=[2**60] * 4)), ["'fc.bias'", "data_offsets [16, 20]"]),
    "offsets of another size": (safetensors(changed("fc.bias", data_offsets=[16, 24])), ["'fc.bias'", "takes 4 bytes"]),
    "offsets reversed": (safetensors(changed("fc.bias", data_offsets=[20, 16])), ["'fc.bias'", "[20, 16]"]),
    "three offsets": (safetensors(changed("fc.bias", data_offsets=[16, 20, 24])), ["'fc.bias'", "[16, 20, 24]"]),
    "overlap": (safetensors(changed("fc.bias", data_offsets=[12, 16])), ["'fc.bias' overlaps 'conv.weight'"]),
    "gap": (
        safetensors({**TENSORS, "bn.num_batches_tracked": {**COUNTER, "data_offsets": [24, 32]}}, VALUES + b"1234"),
        ["'bn.num_batches_tracked' leaves a gap after 'fc.bias'", "24, not 20"],
    ),
    "truncated": (safetensors()[:-1], ["take 28 bytes", "holds 27"]),
    "more at its end": (safetensors(values=VALUES + b"x"), ["take 28 bytes", "holds 29"]),
    "NaN": (safetensors(values=NAN), ["'conv.weight'", "nan at position 2", "[2, 1, 1, 2]"]),
    "infinity": (safetensors(values=NEGATIVE_INFINITY), ["'fc.bias'", "-inf at position 0"]),
}


@pytest.mark.parametrize("case", BAD_SAFETENSORS)
def test_refuses_bad_safetensors(tmp_path: Path, case: str) -> None:
    data, words = BAD_SAFETENSORS[case]
    path = write(tmp_path, data)
    assert file_format(path) == "safetensors"
    with pytest.raises(InvalidModel) as caught:
        inspect_weights(path)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail


def test_finds_an_infinity_beyond_the_first_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dianaq.inspection.weights_safetensors.CHUNK_BYTES", 8)
    values = struct.pack("<5fq", 1, -2, 0.5, float("inf"), 1, 7)
    with pytest.raises(InvalidModel, match=r"'conv\.weight' holds inf at position 3"):
        inspect_weights(write(tmp_path, safetensors(values=values)))


def _bomb() -> bytes:
    """An archive whose directory says that a storage has four gigabytes less one byte."""
    data = bytearray(archive())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    while data[entry + 46 :].find(b"net/data/0") != 0:
        entry = data.index(b"PK\x01\x02", entry + 1)
    struct.pack_into("<II", data, entry + 20, 2**32 - 2, 2**32 - 2)
    return bytes(data)


def _damaged() -> bytes:
    data = bytearray(archive())
    data[data.index(b"net/data/0") + len(b"net/data/0")] ^= 1
    return bytes(data)


def _encrypted() -> bytes:
    data = bytearray(archive())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _many() -> bytes:
    return archive({**MEMBERS, **{f"net/data/{i}": b"" for i in range(10_000)}})


BAD_ARCHIVES: dict[str, tuple[bytes, list[str]]] = {
    "compressed storage": (archive(compressed="net/data/0"), ["'net/data/0'", "is compressed"]),
    "compressed pickle": (archive(compressed="net/data.pkl"), ["'net/data.pkl'", "is compressed"]),
    "zip bomb": (_bomb(), ["take 4,294,", "the file has"]),
    "damaged": (_damaged(), ["damaged or truncated", "CRC"]),
    "encrypted": (_encrypted(), ["damaged or truncated", "encrypted"]),
    "truncated": (archive()[:-30], ["damaged or truncated"]),
    "something before it": (b"PK\x00\x00" + archive(), ["something before its first member"]),
    "no pickle of a network": (archive({"notes/a.bin": b"12"}), ["no state dict of PyTorch", "it holds 0"]),
    "two pickles": (with_members(**{"other/data.pkl": PICKLE}), ["it holds 2"]),
    "parent": (with_members(**{"net/../../evil": b"x"}), ["'net/../../evil'", "no part of a state dict"]),
    "parent as root": (archive({"../data.pkl": PICKLE}), ["one <name>/data.pkl"]),
    "absolute": (with_members(**{"/etc/evil": b"x"}), ["'/etc/evil'"]),
    "backslash": (archive({"a\\b/data.pkl": PICKLE}), ["one <name>/data.pkl"]),
    "another folder": (with_members(**{"other/data/0": b"x"}), ["'other/data/0'"]),
    "storage without a number": (with_members(**{"net/data/x": b"x"}), ["'net/data/x'"]),
    "big endian": (with_members(**{"net/byteorder": b"big"}), ["byte order 'big'", "'little'"]),
    "large version": (with_members(**{"net/version": b"3" * 300}), ["'net/version'", "300 bytes", "at most 256"]),
    "large pickle": (
        with_members(**{"net/data.pkl": PICKLE + b"x" * 2**20}),
        ["'net/data.pkl'", "at most 1,048,576"],
    ),
    "many members": (_many(), ["10,004 members", "at most 10,000"]),
    "a pickle that calls": (
        with_members(**{"net/data.pkl": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."}),
        ["os.system, not weights alone"],
    ),
    "float16": (with_members(**{"net/data.pkl": b"\x80\x02ctorch\nHalfStorage\n."}), ["type half", "float32"]),
    "no pickle": (with_members(**{"net/data.pkl": b"hello"}), ["no pickle, or damaged"]),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_refuses_bad_archives(tmp_path: Path, case: str) -> None:
    data, words = BAD_ARCHIVES[case]
    path = write(tmp_path, data)
    assert file_format(path) == "pytorch"
    with pytest.raises(InvalidModel) as caught:
        inspect_weights(path)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_a_repeated_member(tmp_path: Path) -> None:
    path = write(tmp_path, archive())
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("net/data/0", b"other")
    with pytest.raises(InvalidModel, match="'net/data/0'"):
        inspect_weights(path)


@pytest.mark.parametrize(
    "pickle",
    [
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL takes its names from the stack
        b"(S'ls'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
    ],
)
def test_no_class_hides_behind_another_opcode(pickle: bytes) -> None:
    with pytest.raises(InvalidModel, match="has the opcode"):
        check_globals(pickle)


@pytest.mark.parametrize("good", [safetensors(), archive()], ids=["safetensors", "pytorch"])
def test_every_truncation_is_refused(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "cut"
    for length in range(0, len(good), 3):
        path.write_bytes(good[:length])
        with pytest.raises(InvalidModel):
            inspect_upload(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "is empty"), (b"\x80\x02}q\x00.", "is a pickle.*state_dict"), (b"\x08\x09 hello", "holds no weights")],
)
def test_refuses_what_is_no_weights_file(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(InvalidModel, match=words):
        inspect_weights(write(tmp_path, data))


def test_a_missing_file_and_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidModel, match="No such file"):
        inspect_weights(tmp_path / "none")
    monkeypatch.setattr("dianaq.inspection.formats.MAX_BYTES", 100)
    with pytest.raises(InvalidModel, match="at most 100 are"):
        inspect_weights(write(tmp_path, safetensors()))


def test_a_network_and_weights_are_told_apart(tmp_path: Path) -> None:
    assert inspect_upload(save(classifier(), tmp_path)).format == "onnx"
    with pytest.raises(InvalidModel, match=r"holds weights \(pytorch\), not a network"):
        inspect_model(write(tmp_path, archive()))
