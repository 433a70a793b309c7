"""What a job says of the two cores, and the JSON schema of it all."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from schemas import admits

from dianaq.schemas.cores import AnalogWeights, CoreMapping, Noise, NoiseSweep, Target
from dianaq.schemas.quantisers import InitStrategy, Quantisers
from dianaq.schemas.ranges import QRange
from dianaq.schemas.recipe import Recipe
from dianaq.schemas.spec import JobSpec


def test_by_default_everything_is_digital_and_silent() -> None:
    spec = JobSpec(model="m", dataset="d")
    assert (spec.mapping.default, spec.mapping.ends, spec.mapping.layers) == ("digital", "digital", {})
    assert spec.target.batch_norm_bits == 8
    assert spec.recipe.noise.silent
    assert spec.recipe.noise_sweep is None
    assert spec.recipe.progressive == ()


@pytest.mark.parametrize("field", ["gaussian", "column_gain", "column_offset"])
def test_any_imperfection_is_noise(field: str) -> None:
    assert not Noise.model_validate({field: 0.01}).silent


@pytest.mark.parametrize(
    ("kind", "written", "message"),
    [
        (CoreMapping, {"default": "cpu"}, "'digital', 'analog' or 'auto'"),
        (CoreMapping, {"ends": "auto"}, "'digital' or 'analog'"),
        (CoreMapping, {"layers": {"conv1": "auto"}}, "'digital' or 'analog'"),
        (CoreMapping, {"cores": {}}, "Extra inputs"),
        (Target, {"batch_norm_bits": 12}, "Input should be 8 or 16"),
        (Noise, {"gaussian": -0.1}, "greater than or equal to 0"),
        (Noise, {"gaussian": 16.1}, "less than or equal to 16"),
        (Noise, {"column_gain": 1.1}, "less than or equal to 1"),
        (Noise, {"column_offset": 17}, "less than or equal to 16"),
        (Noise, {"gaussian": float("nan")}, "nan|greater than or equal|finite"),
        (NoiseSweep, {"draws": 0}, "greater than or equal to 1"),
        (NoiseSweep, {"draws": 1001}, "less than or equal to 1000"),
        (NoiseSweep, {"gaussian": [0.5, -1]}, "greater than or equal to 0"),
        (AnalogWeights, {"range": "ternary"}, "Field required"),
        (AnalogWeights, {"range": "ternary", "epochs": -1}, "greater than or equal to 0"),
        (AnalogWeights, {"range": {"bitwidth": 4}, "epochs": 1}, "hold -1, 0 and 1, .*; got 16 levels"),
        (AnalogWeights, {"range": "binary", "epochs": 1}, r"hold -1, 0 and 1, .*; got \[-1, 1\]"),
        (AnalogWeights, {"range": {"bitwidth": 4, "signed": False}, "epochs": 1}, r"hold -1, 0 and 1.*got \[0, 15\]"),
    ],
)
def test_refusals(kind: type[BaseModel], written: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kind.model_validate(written)


def schema_admits(kind: type[BaseModel], value: Any) -> bool:
    schema = kind.model_json_schema()
    return admits(schema, value, schema.get("$defs", {}))


WHOLE: dict[str, Any] = {
    "model": "m",
    "dataset": "d",
    "mapping": {"default": "auto", "ends": "analog", "layers": {"conv1": "digital", "stage*": "analog"}},
    "target": {"batch_norm_bits": 16},
    "recipe": {
        "quantisers": {
            "weights": {"range": [-1, 0, 1], "function": "ternary", "granularity": "per-outchannel_weights"},
            "activations": {"range": {"bitwidth": 7}, "function": "pact", "init": "percentile"},
            "rules": [
                {"type": "conv", "core": "digital", "weights": {"range": "binary", "function": "binary"}},
                {"layers": "fc", "weights": {"granularity": [0], "init": {"strategy": "meanstd", "n_std": 2.5}}},
            ],
        },
        "progressive": [
            {"range": {"bitwidth": 4, "signed": True}, "epochs": 2},
            {"range": [-2, -1, 0, 1], "epochs": 0},
        ],
        "noise": {"gaussian": 0.5, "column_gain": 0.01, "column_offset": 0.25},
        "noise_sweep": {"gaussian": [0, 1], "draws": 3},
    },
}


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (JobSpec, WHOLE),
        (QRange, "binary"),
        (QRange, "ternary"),
        (QRange, [-1, 1]),
        (QRange, [3, 4, 5]),
        (QRange, {"limpbitwidth": 4, "offset": -3}),
        (InitStrategy, "minmax"),
        (InitStrategy, {"strategy": "const", "a": -1.0, "b": 1}),
        (Quantisers, {"weights": {"granularity": [0, 1, 2, 3]}}),
        (Quantisers, {"activations": {"init": "meanstd"}}),
        (Recipe, {"noise_sweep": None}),
    ],
)
def test_the_schema_admits_what_validation_admits(kind: type[BaseModel], written: Any) -> None:
    value = kind.model_validate(written)
    assert schema_admits(kind, written)
    assert schema_admits(kind, value.model_dump(mode="json", by_alias=True))
    assert kind.model_validate_json(value.model_dump_json(by_alias=True)) == value


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (QRange, "quaternary"),
        (QRange, [0]),
        (QRange, [0.5, 1.5]),
        (QRange, {"bitwidth": 9}),
        (QRange, {"bits": 8}),
        (InitStrategy, "max"),
        (InitStrategy, "const"),
        (InitStrategy, {"n_std": 3}),
        (CoreMapping, {"layers": {"conv1": "auto"}}),
        (Noise, {"gaussian": -1}),
        (Target, {"batch_norm_bits": 12}),
    ],
)
def test_the_schema_refuses_what_its_words_can_say(kind: type[BaseModel], written: Any) -> None:
    assert not schema_admits(kind, written)
    with pytest.raises(ValidationError):
        kind.model_validate(written)


def test_a_job_on_both_cores_survives_json() -> None:
    spec = JobSpec.model_validate(WHOLE)
    assert JobSpec.model_validate_json(spec.model_dump_json(by_alias=True)) == spec
    assert spec.mapping.layers == {"conv1": "digital", "stage*": "analog"}
    assert [step.epochs for step in spec.recipe.progressive] == [2, 0]
