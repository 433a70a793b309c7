"""Datasets in memory and mapped from their file: the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dianaq.schemas.spec import JobSpec
from dianaq_quant.training.data import Data, Split, batches
from dianaq_quant.training.load import load_data
from dianaq_quant.training.stored import read_arrays

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)
FLOATS = RANDOM.standard_normal((40, 5, 7)).astype(np.float32)
LABELS = np.arange(40) % 3


def mappings() -> str:
    """The files that this process has mapped into its memory."""
    return Path("/proc/self/maps").read_text()


def load(path: Path, shape: tuple[int, ...], budget: int, **changes: Any) -> Data:
    spec = {"model": "m", "dataset": "d", "recipe": {"float": {"epochs": 1}}, **changes}
    return load_data(path, JobSpec.model_validate(spec), shape, budget=budget)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (BYTES, (3, 8, 6)),
        (BYTES.transpose(0, 3, 1, 2).copy(), (3, 8, 6)),
        (BYTES[..., 0].copy(), (1, 8, 6)),
        (np.asfortranarray(BYTES), (3, 8, 6)),
        (FLOATS, (1, 5, 7)),
        (FLOATS, (35,)),
    ],
    ids=["nhwc", "nchw", "nhw", "fortran", "floats", "vectors"],
)
def test_what_is_mapped_is_what_would_be_in_memory(tmp_path: Path, x: Any, shape: Any, save: Any) -> None:
    path = tmp_path / "data.npz"
    save(path, x_train=x, y_train=LABELS, x_test=x[:9], y_test=LABELS[:9])
    held, mapped = load(path, shape, x.nbytes), load(path, shape, x.nbytes // 2)
    assert [split.mapped for split in (held.train, held.val, held.test)] == [False] * 3
    assert [split.mapped for split in (mapped.train, mapped.val, mapped.test)] == [True, True, False]
    for name in ("train", "val", "test", "calibration"):
        one, other = getattr(held, name), getattr(mapped, name)
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
        assert other.x.dtype == torch.from_numpy(x).dtype
        for (a, _), (b, _) in zip(batches(one, 7), batches(other, 7), strict=True):
            assert torch.equal(held.normalise(a), mapped.normalise(b))
    assert list(tmp_path.iterdir()) == [path]  # nothing is left beside the file


def test_stored_bytes_are_mapped_where_they_lie_and_others_from_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    for save, in_place in ((np.savez, True), (np.savez_compressed, False)):
        save(path, x_train=BYTES)
        arrays, mapped = read_arrays(path, 0)
        assert mapped == {"x_train"}
        assert isinstance(arrays["x_train"], np.memmap)
        lines = [line for line in mappings().splitlines() if str(tmp_path) in line]
        assert len(lines) == 1
        assert lines[0].endswith(str(path)) == in_place
        del arrays
        assert str(tmp_path) not in mappings()


def test_only_samples_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x_train=BYTES, y_train=LABELS)
    arrays, mapped = read_arrays(path, 0)
    assert mapped == {"x_train"}
    assert not isinstance(arrays["y_train"], np.memmap)


def test_writing_to_mapped_samples_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x_train=BYTES)
    before = path.read_bytes()
    read_arrays(path, 0)[0]["x_train"][:] = 7
    assert path.read_bytes() == before


def test_splits_share_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x_train=BYTES, y_train=LABELS)
    data = load(path, (3, 8, 6), BYTES.nbytes)
    stored = {split.stored.data_ptr() for split in (data.train, data.val, data.calibration, data.train.normal())}
    assert len(stored) == 1
    moved = data.to("meta")
    assert moved.train.stored is moved.val.stored is moved.calibration.stored
    assert {t.device.type for t in (moved.train.stored, moved.train.rows, moved.train.y, moved.normalise.factor)} == {
        "meta"
    }
    assert moved.test is None


def test_mapped_samples_stay_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x_train=BYTES, y_train=LABELS)
    moved = load(path, (3, 8, 6), 0).to("meta")
    assert {t.device.type for t in (moved.train.stored, moved.train.rows)} == {"cpu"}
    assert {t.device.type for t in (moved.train.y, moved.normalise.offset)} == {"meta"}


def test_parts_of_parts() -> None:
    x, y = torch.arange(20).reshape(20, 1), torch.arange(20)
    split = Split(x, y).pick(torch.tensor([9, 3, 7, 5])).pick(torch.tensor([3, 1, 0]))
    assert (len(split), split.x.flatten().tolist(), split.y.tolist()) == (3, [5, 3, 9], [5, 3, 9])
    assert split.gather(torch.tensor([2, 2])).flatten().tolist() == [9, 9]
    assert split.take(2).x.flatten().tolist() == [5, 3]
    assert [x.flatten().tolist() for x, _ in batches(split, 2)] == [[5, 3], [9]]
    assert Split(x, y).take(2).x.flatten().tolist() == [0, 1]


def test_images_stay_in_their_order_in_memory_and_batches_are_channels_last() -> None:
    for stored in (torch.zeros(6, 5, 4, 3).permute(0, 3, 1, 2), torch.zeros(6, 3, 5, 4)):
        batch = Split(stored, None).gather(torch.tensor([1, 3]))
        assert batch.stride() == stored.stride()
