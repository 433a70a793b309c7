"""What a recipe may say of quantisers, and the reason it is given for what it may not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from dianaq.errors import InvalidSpec
from dianaq.schemas.quantisers import (
    BUILT_IN_FUNCTIONS,
    InitStrategy,
    QuantiserRule,
    Quantisers,
    QuantiserSpec,
    registered_functions,
)
from dianaq.schemas.spec import parse_spec

INT4: dict[str, Any] = {"bitwidth": 4, "signed": True}


@pytest.mark.parametrize(
    "written",
    [
        *({"strategy": name} for name in ("minmax", "meanstd", "mse", "percentile")),
        {"strategy": "const", "a": -1, "b": 2.5},
        {"strategy": "const", "a": 0, "b": 1},
        {"strategy": "const", "a": -1, "b": 0},
        {"strategy": "meanstd", "n_std": 2},
        {"strategy": "percentile", "percentile": 99},
    ],
)
def test_strategies(written: dict[str, Any]) -> None:
    strategy = InitStrategy.model_validate(written)
    assert InitStrategy.model_validate_json(strategy.model_dump_json()) == strategy


@pytest.mark.parametrize("name", ["minmax", "meanstd", "mse", "percentile"])
def test_a_bare_name_stands_for_the_strategys_defaults(name: str) -> None:
    assert InitStrategy.model_validate(name) == InitStrategy(strategy=name)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("max", "Input should be 'const', 'minmax', 'meanstd', 'mse' or 'percentile'"),
        ("const", "the strategy 'const' needs both a and b"),
        ({"strategy": "const", "a": 0}, "the strategy 'const' needs both a and b"),
        ({"strategy": "const", "a": 1, "b": 2}, "must hold 0, with a < b; got a 1.0 and b 2.0"),
        ({"strategy": "const", "a": -2, "b": -1}, "must hold 0, with a < b"),
        ({"strategy": "const", "a": 0, "b": 0}, "must hold 0, with a < b"),
        ({"strategy": "minmax", "a": 0}, "a belongs to the strategy 'const', not to 'minmax'"),
        ({"strategy": "mse", "b": 0}, "b belongs to the strategy 'const', not to 'mse'"),
        ({"strategy": "minmax", "n_std": 3}, "n_std belongs to the strategy 'meanstd', not to 'minmax'"),
        ({"strategy": "meanstd", "percentile": 99}, "percentile belongs to the strategy 'percentile'"),
        ({"strategy": "meanstd", "n_std": 0}, "greater than 0"),
        ({"strategy": "percentile", "percentile": 50}, "greater than 50"),
        ({"strategy": "percentile", "percentile": 100.1}, "less than or equal to 100"),
        ({"strategy": "const", "a": float("-inf"), "b": 1}, "finite number"),
    ],
)
def test_strategies_refused(written: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InitStrategy.model_validate(written)


@pytest.mark.parametrize(
    ("weights", "dimensions"),
    [
        ({}, ()),
        ({"range": INT4, "granularity": "per-outchannel_weights", "function": "tqt", "init": "minmax"}, (0,)),
        ({"granularity": [0, 1]}, (0, 1)),
        ({"granularity": []}, ()),
        ({"granularity": [1, 3]}, (1, 3)),
        ({"range": "ternary", "function": "ternary"}, ()),
        ({"range": [-1, 0, 1], "function": "ternary", "granularity": "per-outchannel_weights"}, (0,)),
        ({"range": "ternary", "function": "ste", "init": "mse"}, ()),
        ({"range": "binary", "function": "binary"}, ()),
        ({"range": {"bitwidth": 4}}, ()),
        ({"range": {"bitwidth": 4}, "granularity": "per-array"}, ()),
    ],
)
def test_weight_quantisers(weights: dict[str, Any], dimensions: tuple[int, ...]) -> None:
    quantisers = Quantisers.model_validate({"weights": weights})
    assert quantisers.weights.dimensions == dimensions
    assert Quantisers.model_validate_json(quantisers.model_dump_json()) == quantisers


def test_defaults_are_eight_bits_by_least_squares() -> None:
    spec = QuantiserSpec()
    assert (spec.range.lo, spec.range.hi, spec.granularity, spec.function) == (-128, 127, "per-array", "ste")
    assert spec.strategy == InitStrategy(strategy="mse")
    assert QuantiserSpec(init=InitStrategy(strategy="minmax")).strategy.strategy == "minmax"


SIDES = "weights have either sign, so their range must hold both"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"function": "lsq"}, "function 'lsq' is not known; there are ste, pact, tqt, ternary, binary"),
        ({"range": INT4, "function": "ternary"}, r"function 'ternary' takes the range 'ternary', not \[-8, 7\]"),
        ({"range": {"n_levels": 3}, "function": "ternary"}, "takes the range 'ternary', not 3 levels"),
        (
            {"range": "binary"},
            r"'binary' and the function 'binary' go together; got range \[-1, 1\] and function 'ste'",
        ),
        ({"range": INT4, "function": "binary"}, r"go together; got range \[-8, 7\] and function 'binary'"),
        ({"range": "ternary", "function": "ternary", "init": "mse"}, "'ternary' starts from its own estimate"),
        ({"range": "binary", "function": "binary", "init": "mse"}, "'binary' starts from its own estimate"),
        ({"granularity": [1, 0]}, r"ascending order, each once; got \(1, 0\)"),
        ({"granularity": [0, 0]}, r"ascending order, each once; got \(0, 0\)"),
        ({"granularity": [4]}, "less than or equal to 3"),
        ({"granularity": "per-channel"}, "'per-array' or 'per-outchannel_weights'"),
        (
            {"range": {"bitwidth": 4}, "granularity": "per-outchannel_weights"},
            "a free offset is one for the whole array",
        ),
        ({"range": {"bitwidth": 4}, "granularity": [0]}, "a free offset is one for the whole array"),
        ({"range": {"bitwidth": 8, "signed": False}}, rf"{SIDES}; got \[0, 255\]"),
        ({"range": {"bitwidth": 1, "signed": True}}, rf"{SIDES}; got \[-1, 0\]"),
        ({"function": "pact"}, "function 'pact' learns the upper bound of an activation; for weights take"),
        ({"bits": 8}, "Extra inputs are not permitted"),
    ],
)
def test_weight_quantisers_refused(weights: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Quantisers.model_validate({"weights": weights})
    with pytest.raises(ValidationError, match=message):
        Quantisers.model_validate({"rules": [{"weights": weights}]})


@pytest.mark.parametrize(
    "activations",
    [
        {"range": {"bitwidth": 8, "signed": False}},
        {"range": {"bitwidth": 7}},
        {"range": {"limpbitwidth": 7, "signed": True}, "function": "tqt"},
        {"function": "pact", "init": {"strategy": "const", "a": 0, "b": 6}},
        {"granularity": []},
    ],
)
def test_activation_quantisers(activations: dict[str, Any]) -> None:
    quantisers = Quantisers.model_validate({"activations": activations})
    assert Quantisers.model_validate_json(quantisers.model_dump_json()) == quantisers


HOLD = "the range of activations must hold 0 and positive integers"


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        ({"granularity": "per-outchannel_weights"}, "quantised 'per-array' only, .*; got 'per-outchannel_weights'"),
        ({"granularity": [0]}, r"quantised 'per-array' only, .*; got \(0,\)"),
        ({"range": {"n_levels": 4, "offset": 1}}, rf"{HOLD}; got \[1, 4\]"),
        ({"range": {"n_levels": 4, "offset": -3}}, rf"{HOLD}; got \[-3, 0\]"),
        ({"range": "ternary", "function": "ternary"}, "function 'ternary' is for weights; activations take"),
        ({"range": "binary", "function": "binary"}, "function 'binary' is for weights; activations take"),
    ],
)
def test_activation_quantisers_refused(activations: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Quantisers.model_validate({"activations": activations})
    with pytest.raises(ValidationError, match=message):
        Quantisers.model_validate({"rules": [{"activations": activations}]})


def test_rules_take_conditions_and_quantisers() -> None:
    rule = {"layers": "stage*.conv?", "type": "depthwise", "core": "digital", "weights": {"range": INT4}}
    quantisers = Quantisers.model_validate({"rules": [rule, {"activations": {"function": "pact"}}]})
    assert quantisers.rules[0].weights is not None
    assert quantisers.rules[0].activations is None
    assert quantisers.rules[1] == QuantiserRule(activations=QuantiserSpec(function="pact"))
    assert Quantisers.model_validate_json(quantisers.model_dump_json()) == quantisers


@pytest.mark.parametrize("rule", [{"type": "pool"}, {"core": "gpu"}, {"name": "conv1"}, {"layers": None}])
def test_rules_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Quantisers.model_validate({"rules": [rule]})


def test_a_job_is_told_which_field_is_wrong() -> None:
    recipe = {"quantisers": {"rules": [{"weights": {"range": {"bitwidth": 4}, "granularity": [0]}}]}}
    with pytest.raises(InvalidSpec, match="a free offset is one for the whole array") as caught:
        parse_spec({"model": "m", "dataset": "d", "recipe": recipe})
    assert caught.value.param == "recipe.quantisers.rules.0.weights"


@pytest.fixture
def registered() -> Iterator[str]:
    registered_functions.add("mine")
    yield "mine"
    registered_functions.discard("mine")


def test_a_registered_function_is_a_quantiser_like_any_other(registered: str) -> None:
    assert QuantiserSpec(function=registered, granularity="per-outchannel_weights").function == "mine"
    with pytest.raises(ValidationError, match=f"there are {', '.join(BUILT_IN_FUNCTIONS)}, mine "):
        QuantiserSpec(function="others")


def test_an_unregistered_function_is_refused() -> None:
    with pytest.raises(ValidationError, match="can be registered only where the library is used from Python"):
        QuantiserSpec(function="mine")
