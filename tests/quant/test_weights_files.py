"""Inspection of weights files against what torch really writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dianaq.errors import InvalidModel
from dianaq.inspection import inspect_weights


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def test_takes_state_dicts(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "a.pt")
    torch.save({"epoch": 3, "model": dict(network().named_parameters())}, tmp_path / "b c.pth")
    info = inspect_weights(tmp_path / "a.pt")
    assert (info.format, info.tensors, info.bytes) == ("pytorch", 7, 4 * (108 + 5 * 4) + 8)
    assert inspect_weights(tmp_path / "b c.pth").tensors == 4


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.nn.Linear(2, 2), r"a pickled module, .* torch\.save\(network\.state_dict\(\), path\)"),
        (torch.nn.Linear(2, 2).half().state_dict(), r"type half; weights must be float32: call \.float\(\)"),
        ({"w": torch.zeros(2).to_sparse()}, r"torch\._utils\._rebuild_sparse_tensor"),
    ],
    ids=["module", "half", "sparse"],
)
def test_refuses_other_things(tmp_path: Path, value: Any, words: str) -> None:
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(InvalidModel, match=words):
        inspect_weights(tmp_path / "x.pt")


def test_refuses_the_format_before_the_zip(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InvalidModel, match="is a pickle"):
        inspect_weights(tmp_path / "x.pt")
