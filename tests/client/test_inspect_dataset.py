"""What inspection finds in good npz files, and that each bad one is refused by the name of what is wrong."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dianaq.errors import InvalidDataset
from dianaq.inspection import inspect_dataset
from dianaq.inspection.npz_values import CHUNK_BYTES
from dianaq.schemas.resources import SplitInfo

IMAGES = np.arange(6 * 8 * 8 * 3, dtype=np.uint8).reshape(6, 8, 8, 3)
FLOATS = np.linspace(-1, 1, 6 * 4, dtype=np.float32).reshape(6, 4)
LABELS = np.array([0, 1, 2, 3, 2, 1])


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


def write_members(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_reports_splits(tmp_path: Path) -> None:
    path = write(tmp_path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[1:3].astype(np.uint8))
    splits = inspect_dataset(path).splits
    assert list(splits) == ["train", "test"]
    assert (splits["train"].samples, splits["train"].sample_shape, splits["train"].dtype) == (6, (8, 8, 3), "uint8")
    assert (splits["train"].label_min, splits["train"].label_max) == (0, 3)
    assert (splits["test"].label_min, splits["test"].label_max) == (1, 2)


@pytest.mark.parametrize(
    "x", [FLOATS, FLOATS[:, None, :, None, None], IMAGES[..., 0], np.asfortranarray(IMAGES)], ids=str
)
def test_takes_unlabelled_samples_of_many_shapes(tmp_path: Path, x: np.ndarray) -> None:
    train = inspect_dataset(write(tmp_path, x_train=x)).splits["train"]
    assert train.sample_shape == x.shape[1:]
    assert train.label_max is None


@pytest.mark.parametrize(
    ("y", "kind", "bounds"),
    [
        (LABELS - 1, "integers", (-1, 2)),
        (LABELS.reshape(6, 1), "integers", (None, None)),
        (LABELS.astype("f4"), "whole", (None, None)),
        (LABELS.astype(">f8") / 4, "numbers", (None, None)),
        (np.eye(6), "one_hot", (None, None)),
        (np.asfortranarray(np.eye(6)[[0, 0, 1, 5, 2, 2]]), "one_hot", (None, None)),
        (np.eye(6, dtype=int)[::-1], "one_hot", (None, None)),
        (np.eye(6)[[0, 1, 2, 3, 4, 4]] * [[1], [1], [1], [1], [1], [0]], "whole", (None, None)),
        (np.ones((6, 2)), "whole", (None, None)),
        (np.linspace(0, 1, 48).reshape(6, 2, 2, 2), "numbers", (None, None)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_takes_labels_of_every_task(tmp_path: Path, y: np.ndarray, kind: str, bounds: tuple[Any, Any]) -> None:
    train = inspect_dataset(write(tmp_path, x_train=FLOATS, y_train=y)).splits["train"]
    assert (train.label_kind, (train.label_min, train.label_max)) == (kind, bounds)
    assert (train.label_shape, train.label_dtype, train.labelled) == (y.shape[1:], y.dtype.name, True)


def test_one_hot_rows_are_seen_across_chunks(tmp_path: Path) -> None:
    count = CHUNK_BYTES // 8
    x, y = np.zeros((count, 1), np.float32), np.eye(3)[np.arange(count) % 3]
    assert inspect_dataset(write(tmp_path, x_train=x, y_train=y)).splits["train"].label_kind == "one_hot"
    y[-1, 0] = 1
    y[-1, 1:] = 1
    assert inspect_dataset(write(tmp_path, x_train=x, y_train=y)).splits["train"].label_kind == "whole"


def test_splits_that_were_inspected_before_labels_had_shapes() -> None:
    stored = {"samples": 5, "sample_shape": [4], "dtype": "float32", "label_min": 0, "label_max": 3}
    split = SplitInfo.model_validate_json(json.dumps(stored))
    assert (split.label_kind, split.label_shape, split.labelled) == ("integers", (), True)
    split = SplitInfo.model_validate_json(json.dumps({**stored, "label_min": None, "label_max": None}))
    assert (split.label_kind, split.labelled) == (None, False)


@pytest.mark.parametrize("stored", [True, False])
def test_takes_real_data(shared_data: Path, tmp_path: Path, stored: bool) -> None:
    with np.load(shared_data / "cifar10_test_2k.npz") as archive:
        x, y = archive["x"], archive["y"]
    path = tmp_path / "cifar.npz"
    (np.savez if stored else np.savez_compressed)(path, x_train=x, y_train=y)
    train = inspect_dataset(path).splits["train"]
    assert (train.samples, train.sample_shape, train.label_max) == (2000, (32, 32, 3), 9)


def _with(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


BAD_ARRAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no x_train": ({"x_test": FLOATS}, ["x_train is missing", "x_test"]),
    "unknown key": ({"x_train": FLOATS, "labels": LABELS}, ["'labels'", "accepted are x_train, y_train"]),
    "objects": ({"x_train": np.array([{}, 1], object)}, ["x_train", "Python objects"]),
    "object labels": ({"x_train": FLOATS, "y_train": LABELS.astype(object)}, ["y_train", "Python objects"]),
    "float64": ({"x_train": FLOATS.astype(np.float64)}, ["x_train", "float64", "x_train.astype('float32')"]),
    "big endian": ({"x_train": FLOATS.astype(">f4")}, ["x_train", ">f4", "astype('float32')"]),
    "bool": ({"x_train": FLOATS > 0}, ["x_train", "bool", "uint8"]),
    "text": ({"x_train": np.array([["a"], ["b"]])}, ["x_train", "<U1"]),
    "one dimension": ({"x_train": FLOATS[:, 0]}, ["x_train", "(6,)"]),
    "uint8 volumes": ({"x_train": IMAGES[..., None]}, ["x_train", "(6, 8, 8, 3, 1)", "NHWC"]),
    "no samples": ({"x_train": IMAGES[:0]}, ["x_train is empty", "(0, 8, 8, 3)"]),
    "lengths": ({"x_train": FLOATS, "y_train": LABELS[:5]}, ["y_train", "5 labels", "6 samples"]),
    "labels alone": ({"x_train": FLOATS, "y_val": LABELS}, ["y_val", "no samples x_val"]),
    "label for a folder": ({"x_train": FLOATS, "y_train": LABELS[:1]}, ["1 label for 6 samples", "x_train[None]"]),
    "one label": ({"x_train": FLOATS[:1], "y_train": LABELS[0]}, ["y_train is a single label", "y_train.reshape(1)"]),
    "no numbers": ({"x_train": FLOATS, "y_train": np.zeros((6, 0))}, ["y_train is empty", "(6, 0)"]),
    "half labels": ({"x_train": FLOATS, "y_train": LABELS.astype("f2")}, ["float16", "y_train.astype('float32')"]),
    "bool labels": ({"x_train": FLOATS, "y_train": LABELS > 1}, ["y_train", "bool", "y_train.astype('int64')"]),
    "NaN label": ({"x_train": FLOATS, "y_train": _with(FLOATS, (4, 2), np.nan)}, ["y_train", "nan", "[4, 2]"]),
    "label beyond float32": (
        {"x_train": FLOATS, "y_train": _with(FLOATS.astype(float), (2, 1), 1e39)},
        ["y_train", "1e+39", "[2, 1]", "float32"],
    ),
    "other shape": ({"x_train": FLOATS, "x_val": FLOATS[:, :3]}, ["x_val", "(3,)", "(4,)"]),
    "other type": ({"x_train": FLOATS, "x_test": FLOATS.astype(np.uint8)}, ["x_test", "uint8", "float32"]),
    "NaN": ({"x_train": FLOATS, "x_val": _with(FLOATS, (4, 2), np.nan)}, ["x_val", "nan", "[4, 2]"]),
    "infinity": ({"x_train": _with(FLOATS, (5, 3), -np.inf)}, ["x_train", "-inf", "[5, 3]"]),
    "NaN, Fortran order": (
        {"x_train": np.asfortranarray(_with(FLOATS, (1, 3), np.nan))},
        ["x_train", "nan", "[1, 3]"],
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_refuses_bad_arrays(tmp_path: Path, case: str) -> None:
    arrays, words = BAD_ARRAYS[case]
    path = write(tmp_path, **arrays)
    with pytest.raises(InvalidDataset) as caught:
        inspect_dataset(path)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert list(tmp_path.iterdir()) == [path]


def test_finds_a_nan_beyond_the_first_chunk(tmp_path: Path) -> None:
    x = np.zeros((3, CHUNK_BYTES // 8), np.float32)
    x[2, 7] = np.nan
    with pytest.raises(InvalidDataset, match=r"x_train holds nan at \[2, 7\]"):
        inspect_dataset(write(tmp_path, x_train=x))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "x_train is missing"),
        ({"x_train.npy": b"hello"}, "x_train is not a readable npy array"),
        ({"x_train": npy(FLOATS)}, "'x_train', which is not known"),
        ({"x_train.npy": npy(FLOATS)[:-1]}, r"declares the shape \(6, 4\) of float32, 96 bytes, but 95"),
        ({"x_train.npy": npy(FLOATS) + b"more"}, "96 bytes, but 100"),
        ({"x_train.npy": npy_header((2**40, 2**20))}, "but 0 bytes are stored"),
        ({"x_train.npy": npy_header((-1, 4)) + b"1234"}, "declares the shape"),
        ({"x_train.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': exit()"}, "not a readable npy array"),
        ({"x_train.npy": b"\x93NUMPY\x09\x00" + b"\x00" * 100}, "npy format 9.0"),
    ],
)
def test_refuses_headers_that_lie(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(InvalidDataset, match=words):
        inspect_dataset(write_members(tmp_path, members))


def test_refuses_a_repeated_member(tmp_path: Path) -> None:
    path = write_members(tmp_path, {"x_train.npy": npy(FLOATS)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("x_train.npy", npy(FLOATS))
    with pytest.raises(InvalidDataset, match="x_train twice"):
        inspect_dataset(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path, x_train=FLOATS, y_train=LABELS).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidDataset):
            inspect_dataset(path)


def test_refuses_damaged_data(tmp_path: Path) -> None:
    path = write_members(tmp_path, {"x_train.npy": npy(IMAGES)})
    data = bytearray(path.read_bytes())
    data[400] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InvalidDataset, match="damaged or truncated"):
        inspect_dataset(path)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04 nearly a zip"])
def test_refuses_what_is_no_npz(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(data)
    with pytest.raises(InvalidDataset, match=r"empty|not an npz"):
        inspect_dataset(path)


def test_refuses_more_than_the_cap_before_reading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dianaq.inspection.npz.MAX_BYTES", 90)
    with pytest.raises(InvalidDataset, match="take 96 bytes; at most 90"):
        inspect_dataset(write(tmp_path, x_train=FLOATS))
