"""Operators and editors of one's own, which the import asks before it refuses anything."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, fx, nn

from dianaq.errors import InvalidSpec, QuantisationError, UnsupportedOperator
from dianaq.inspection import own_operators
from dianaq.inspection.own_operators import GROUP
from dianaq_quant import Chain, Editor, Operators, Point, quantise
from dianaq_quant.graph.surgery import calls, set_module
from dianaq_quant.importers import Wishes, import_module, import_onnx, own
from dianaq_quant.modules.structure import Ceiling

from .builder import ModelBuilder
from .support import kinds

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_operator", EXAMPLES / "own_operator.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_operator", module)
    spec.loader.exec_module(module)
    return module


def install(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    """Entry points, as if packages that bring them were installed."""
    found = [EntryPoint(name, value, GROUP) for name, value in entries]
    for module in (own, own_operators):
        monkeypatch.setattr(module, "entry_points", lambda group: found if group == GROUP else [])


def test_the_example_runs(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python, file = example.main(tmp_path)
    assert "conv" in capsys.readouterr().out
    assert "act: its shoulder is sharp on the chip" in python.report["notes"]
    x = torch.rand(8, 1, 8, 8)
    assert torch.equal(python.integer(x), file.integer(x))
    for folder in ("python", "onnx"):
        assert (tmp_path / folder / "htvm" / "model.onnx").is_file()


def test_an_installed_package_is_asked_in_both_ways_in(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = example.Network(), tmp_path / "own.onnx"
    onnx.save(example.as_onnx(network), str(path))
    with pytest.raises(UnsupportedOperator, match="no core computes tanh"):
        import_module(network, (1, 8, 8))
    with pytest.raises(UnsupportedOperator, match=r"node 'act' \(com\.example\.Saturate\)"):
        import_onnx(path)
    install(monkeypatch, ("com.example.Saturate", "own_operator:operators"))
    for imported in (import_module(network, (1, 8, 8)), import_onnx(path)):
        assert kinds(imported.graph) == ["Conv2d", "Ceiling", "GlobalAvgPool2d", "Flatten", "Linear"]
        layer = next(module for _, module in calls(imported.graph, Ceiling))
        assert layer.max_val == 4
    data = {"x_train": np.zeros((8, 8, 8), np.uint8)}
    assert quantise(path, data, tmp_path / "out").report["layers"]


def test_what_the_caller_hands_over_goes_before_what_is_installed(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, ("anything", "own_operator:operators"))
    mine = Operators()

    @mine.python(example.Saturate)
    def plain(call: Any, x: fx.Node) -> Chain:
        return Chain((x,), (nn.ReLU(),))

    assert kinds(import_module(example.Network(), (1, 8, 8), Wishes(operators=mine)).graph)[1] == "ReLU"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_package:operators", "com.example.X = no_such_package:operators cannot be loaded: No module named"),
        ("own_operator:nothing", "cannot be loaded: .* has no attribute 'nothing'"),
        ("own_operator:Network", "leads to a type, not to a dianaq_quant.Operators"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_named(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    install(monkeypatch, ("com.example.X", value))
    with pytest.raises(QuantisationError, match=words) as caught:
        import_module(nn.Sequential(nn.Conv2d(1, 2, 1)), (1, 8, 8))
    assert caught.value.param == "com.example.X"


def test_readers_of_what_torch_has_take_functions_too() -> None:
    operators = Operators()

    @operators.python(nn.Hardswish, torch.fft.fft)
    def read(call: Any, x: fx.Node) -> Chain:
        return Chain((x,), (nn.ReLU6(),))

    @operators.onnx("Sin", "ai.onnx.Cos")
    def handle(importer: Any, step: Any) -> None:
        importer.call(step, nn.ReLU())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(1, 2, 1), nn.Hardswish()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.fft.fft(self.act(self.conv(x)))
            return y

    network = import_module(Net(), (1, 8, 8), Wishes(operators=operators))
    assert kinds(network.graph) == ["Conv2d", "Ceiling", "Ceiling"]
    assert {e.node for e in network.edits if e.editor == "ReadOwn"} == {"act", "fft_fft"}
    assert {*operators.handlers} == {"Sin", "Cos"}


class Harden(Editor):
    """`hardswish(x) -> min(max(x, 0), 5)`."""

    def find(self, network: fx.GraphModule) -> Iterator[Point]:
        for node, _ in calls(network, nn.Hardswish):
            yield Point((node,), "harder")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        set_module(network, point.nodes[0], Ceiling(5.0))


class Spoil(Harden):
    """`hardswish(x) -> bilinear(x)`, which nobody knows."""

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        set_module(network, point.nodes[0], nn.Softsign())


def hardswish_file(folder: Path) -> Path:
    b = ModelBuilder((3, 6, 6), opset=14)
    y = b.conv(b.input, 4)
    y = b.node("HardSwish", [y], y.shape, "act")
    onnx.save(b.build(b.gemm(b.flatten(b.global_pool(y)), 3)), str(folder / "model.onnx"))
    return folder / "model.onnx"


def hardswish_module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize("way", ["file", "module"])
def test_ones_own_editor_of_the_import_runs_before_anything_is_refused(tmp_path: Path, way: str) -> None:
    network: Any = hardswish_file(tmp_path) if way == "file" else hardswish_module()
    data = {"x_train": np.random.default_rng(0).integers(0, 256, (16, 3, 6, 6)).astype(np.uint8)}
    result = quantise(network, data, tmp_path / "out", editors={"import": [Harden()]})
    edits = [(e["stage"], e["node"], e["note"]) for e in result.report["edits"] if e["editor"] == "Harden"]
    assert edits == [("import", "act" if way == "file" else "1", "harder")]
    with pytest.raises(UnsupportedOperator, match=r"\(Softsign\): no core computes it"):
        quantise(network, data, tmp_path / "spoilt", editors={"import": [Spoil()]})


def test_a_handler_of_ones_own_goes_before_the_substitution(tmp_path: Path) -> None:
    operators = Operators()

    @operators.onnx("HardSwish")
    def handle(importer: Any, step: Any) -> None:
        importer.call(step, Ceiling(5.0))

    data = {"x_train": np.random.default_rng(0).integers(0, 256, (16, 3, 6, 6)).astype(np.uint8)}
    assert quantise(hardswish_file(tmp_path), data, tmp_path / "out", operators=operators).report["layers"]


def test_an_editor_of_a_stage_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="there are import, canonicalise"):
        quantise(hardswish_module(), {"x_train": np.zeros((4, 3, 6, 6))}, tmp_path / "o", editors={"imports": []})  # type: ignore[dict-item]
