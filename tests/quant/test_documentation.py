"""What the documentation shows is run."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import nn

from dianaq.schemas.recipe import merge
from dianaq.schemas.spec import JobSpec
from dianaq_quant.export import check
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
