"""What the documentation shows is run."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dianaq.schemas.recipe import merge
from dianaq.schemas.spec import JobSpec
from dianaq_quant.export import check
from dianaq_quant.importers import import_onnx
from dianaq_quant.targets.diana import placement
from dianaq_quant.targets.diana.rules import Rule

ROOT = Path(__file__).parents[2]


def test_the_example_of_an_editor_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "library.md").read_text()
    (code,) = re.findall(r"## One's own editor\n.*?```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(16, 2))
    data = {"x_train": np.random.default_rng(0).integers(0, 256, (16, 3, 4, 4)).astype(np.uint8)}
    names: dict[str, Any] = {"model": model, "data": data | {"y_train": np.arange(16) % 2}}
    exec(code, names)
    own = [(e["stage"], e["note"]) for e in names["result"].report["edits"] if e["editor"] == "LiftCeilings"]
    assert own == [("canonicalise", "its ceiling was 6")]
    assert (tmp_path / "out" / "report.json").is_file()


def test_the_example_of_an_operator_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "library.md").read_text()
    (code,) = re.findall(r"## One's own operator\n.*?```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softsign(), nn.Flatten(), nn.Linear(16, 2))
    data = {"x_train": np.random.default_rng(0).integers(0, 256, (16, 3, 4, 4)).astype(np.uint8)}
    names: dict[str, Any] = {"model": model, "data": data}
    exec(code, names)
    assert "1: became a ReLU6" in names["result"].report["notes"]
    assert [*names["operators"].handlers] == ["com.example.Clamp"]


def test_the_mixed_recipe_is_a_job_with_and_without_what_is_commented_out() -> None:
    text = (ROOT / "examples" / "mixed.yaml").read_text()
    whole = re.sub(r"^  # (?=progressive:|  - |noise:)", "  ", text, flags=re.MULTILINE)
    plain, full = (
        JobSpec.model_validate(merge({"model": "m", "dataset": "d"}, yaml.safe_load(content)))
        for content in (text, whole)
    )
    assert (plain.recipe.progressive, plain.recipe.noise.silent) == ((), True)
    assert [step.range.bitwidth for step in full.recipe.progressive] == [8, 4]
    assert not full.recipe.noise.silent


def test_the_rules_of_the_compilers_are_all_listed() -> None:
    folder = Path(str(check.__file__)).parent
    modules = [placement, *(import_module(f"{check.__name__}.{file.stem}") for file in folder.glob("[a-z]*.py"))]
    rules = {rule.id: rule for module in modules for rule in vars(module).values() if isinstance(rule, Rule)}
    rules.pop("file.dialect")
    text = (ROOT / "docs" / "checks.md").read_text()
    listed = re.findall(r"^\| `([a-z0-9.-]+\.[a-z0-9.-]+)`( \*)? \| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert len(listed) > 90
    assert {entry[0]: entry for entry in listed} == {
        rule.id: (rule.id, " *" if rule.of_network else "", rule.severity, rule.says) for rule in rules.values()
    }


def test_the_exports_that_bring_your_network_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "bring-your-network.md").read_text()
    (code,) = re.findall(r"## From PyTorch\n```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporters warn of themselves
        exec(code, {"torch": torch, "model": model, "x": torch.randn(1, 3, 4, 4)})
        kept = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
        assert all(f"{name}=" in text for name in kept)
        torch.onnx.export(model.eval(), torch.randn(1, 3, 4, 4), "apart.onnx", dynamo=False, **kept)
    folded, apart = (import_onnx(tmp_path / name).graph for name in ("net.onnx", "apart.onnx"))
    x = torch.randn(5, 3, 4, 4)
    for network in (folded, apart):
        torch.testing.assert_close(network(x), model(x))
    assert any(isinstance(module, nn.BatchNorm2d) for module in apart.modules())
