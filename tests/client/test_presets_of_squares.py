"""Presets where the loss is a squared error: smaller steps, whatever form the recipe comes in."""

from __future__ import annotations

from typing import Any

import pytest

from dianaq import JobSpec, Recipe
from dianaq.schemas.recipe import PRESETS, PRESETS_OF_SQUARES
from dianaq.schemas.spec import parse_spec


def job(task: str, recipe: Any) -> Recipe:
    return parse_spec({"model": "m", "dataset": "d", "task": task, "recipe": recipe}).recipe


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("task", ["regression", "imitation"])
def test_a_preset_trains_squares_with_adam(preset: str, task: str) -> None:
    recipe = job(task, {"preset": preset})
    assert recipe == job(task, Recipe.model_validate({"preset": preset}))
    trained = [recipe.training(i) for i in ("hardware_mapped", "hardware_exact") if recipe.epochs(i)]
    assert {t.optimiser for t in trained} <= {"adam"}
    assert all(t.learning_rate <= 0.001 for t in trained)
    plain = Recipe.model_validate({"preset": preset})
    assert recipe.hardware_mapped.epochs == plain.hardware_mapped.epochs
    assert recipe.hardware_mapped.distillation == plain.hardware_mapped.distillation


@pytest.mark.parametrize("preset", PRESETS_OF_SQUARES)
def test_what_is_set_stays(preset: str) -> None:
    asked = {"preset": preset, "hardware_mapped": {"optimiser": "sgd", "learning_rate": 0.007}}
    recipe = job("regression", asked)
    assert (recipe.hardware_mapped.optimiser, recipe.hardware_mapped.learning_rate) == ("sgd", 0.007)
    assert recipe.hardware_exact.optimiser == "adam"
    whole = job("regression", Recipe.model_validate({"preset": preset, "hardware_mapped": {"learning_rate": 0.007}}))
    assert (whole.hardware_mapped.optimiser, whole.hardware_mapped.learning_rate) == ("adam", 0.007)


@pytest.mark.parametrize("task", ["classification", "reconstruction"])
@pytest.mark.parametrize("preset", PRESETS)
def test_other_tasks_train_as_before(preset: str, task: str) -> None:
    assert job(task, {"preset": preset}) == Recipe.model_validate({"preset": preset})


@pytest.mark.parametrize("recipe", [{}, {"hardware_mapped": {"epochs": 1}}, Recipe()])
def test_a_recipe_without_a_preset_is_as_it_is(recipe: Any) -> None:
    assert job("imitation", recipe) == Recipe.model_validate(recipe)


def test_a_recorded_job_is_the_same_job() -> None:
    asked = {"preset": "qat", "hardware_mapped": {"optimiser": "sgd", "learning_rate": 0.03}}
    spec = parse_spec({"model": "m", "dataset": "d", "task": "regression", "recipe": asked})
    assert parse_spec(spec.recorded()) == spec
    assert JobSpec.model_validate(spec) == spec


@pytest.mark.parametrize("recipe", [{"preset": "best"}, {"preset": ["qat"]}, 3, "qat"])
def test_what_is_no_recipe_is_refused_as_ever(recipe: Any) -> None:
    with pytest.raises(Exception, match="recipe"):
        job("regression", recipe)
