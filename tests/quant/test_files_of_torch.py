"""What torch writes beside state dicts is refused, and what the refusal says to do makes a network that is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection import inspect_model, inspect_upload, inspect_weights
from dianaq_quant.importers import import_onnx
from dianaq_quant.importers.weights import load_weights

pytestmark = pytest.mark.filterwarnings(
    *(f"ignore::{kind}" for kind in ("DeprecationWarning", "FutureWarning", "UserWarning", "torch.jit.TracerWarning"))
)

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    ).eval()


def _script(model: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.script(model), path)


def _export(model: nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(model, (X,)), path)


WAYS: dict[str, tuple[Callable[[nn.Module, Path], Any], str, Callable[[Path, Path], Any]]] = {
    "TorchScript": (
        _script,
        r"TorchScript, .* model = torch\.jit\.load\(FILE\), with dynamo=False in place of external_data",
        lambda path, out: torch.onnx.export(torch.jit.load(path).eval(), (X,), out, dynamo=False),
    ),
    "pt2": (
        _export,
        r"torch\.export\.save .* torch\.onnx\.export\(torch\.export\.load\(FILE\), \(x,\), \"net\.onnx\", external",
        lambda path, out: torch.onnx.export(torch.export.load(path), (X,), out, external_data=False),
    ),
    "pickled module": (
        torch.save,
        r"a pickled module, .* torch\.onnx\.export\(model\.eval\(\), \(x,\), \"net\.onnx\", external_data=False\)",
        lambda path, out: torch.onnx.export(
            torch.load(path, weights_only=False).eval(), (X,), out, external_data=False
        ),
    ),
}


def same(path: Path, model: nn.Module) -> None:
    """The imported network computes what the model does."""
    imported = import_onnx(path).graph
    batch = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(imported(batch), model(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_of_torch_says_what_makes_onnx_of_it(tmp_path: Path, way: str) -> None:
    save, words, follow = WAYS[way]
    save(network(), tmp_path / "net.pt")
    with pytest.raises(InvalidModel, match=words):
        inspect_upload(tmp_path / "net.pt")
    follow(tmp_path / "net.pt", tmp_path / "net.onnx")
    same(tmp_path / "net.onnx", network())


@pytest.mark.parametrize("old", [True, False])
def test_state_dicts_are_what_pickles_should_be(tmp_path: Path, old: bool) -> None:
    model, path = network(), tmp_path / "net.pt"
    torch.save(model.state_dict() if old else model, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(InvalidModel, match=r"torch\.save\(network\.state_dict\(\), path\)"):
        inspect_weights(path)
    torch.save(model.state_dict(), path)
    other = network()
    nn.init.zeros_(other[0].weight)  # type: ignore[index, arg-type]
    load_weights(other, path)
    assert torch.equal(model(X), other(X))


class Dropped(nn.Module):
    """A dropout and no normalisation: all that its export in training mode keeps is the dropout's flag."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Conv2d(3, 4, 3), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.drop(self.layer(x))
        return result


TRAINING: dict[str, Any] = {
    "training": torch.onnx.TrainingMode.TRAINING,
    "do_constant_folding": False,
    "dynamo": False,
}


@pytest.mark.parametrize(
    ("model", "opset"),
    [(network(), 9), (network(), 13), (network(), 17), (Dropped().eval(), 13), (Dropped().eval(), 17)],
)
def test_an_export_in_training_mode_says_eval_which_is_taken(tmp_path: Path, model: nn.Module, opset: int) -> None:
    path = tmp_path / "net.onnx"
    torch.onnx.export(model.train(), (X,), path, opset_version=opset, **TRAINING)
    model.eval()
    with pytest.raises(UnsupportedOperator, match=r"training mode; export the model after model\.eval\(\)"):
        inspect_model(path)
    torch.onnx.export(model, (X,), path, opset_version=opset, dynamo=False)
    same(path, model)


def test_a_dropout_of_old_opsets_is_the_identity_whatever_mode_it_was_exported_in(tmp_path: Path) -> None:
    model, path = Dropped(), tmp_path / "net.onnx"
    torch.onnx.export(model.train(), (X,), path, opset_version=9, **TRAINING)
    inspect_model(path)
    same(path, model.eval())
