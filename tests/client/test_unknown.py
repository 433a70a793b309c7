"""An unknown field of a specification, however deep, says which one may be meant."""

from __future__ import annotations

from typing import Any

import pytest

from dianaq.errors import InvalidSpec
from dianaq.schemas.spec import MAX_FAULTS, JobSpec, parse_spec
from dianaq.schemas.sweeps import parse_sweep
from dianaq.schemas.unknown import fields_at

JOB = {"model": "m", "dataset": "d"}


@pytest.mark.parametrize(
    ("given", "param", "meant"),
    [
        ({"maping": {}}, "maping", "mapping"),
        ({"recipe": {"sede": 1}}, "recipe.sede", "seed"),
        ({"recipe": {"float": {"epoch": 1}}}, "recipe.float.epoch", "epochs"),
        (
            {"recipe": {"quantisers": {"rules": [{"layer": "a"}]}}},
            "recipe.quantisers.rules.0.layer",
            "layers",
        ),
        (
            {"recipe": {"quantisers": {"weights": {"range": {"bitwith": 8}}}}},
            "recipe.quantisers.weights.range.bitwith",
            "bitwidth",
        ),
        (
            {"recipe": {"quantisers": {"weights": {"init": {"strategy": "meanstd", "nstd": 2}}}}},
            "recipe.quantisers.weights.init.nstd",
            "n_std",
        ),
        (
            {"recipe": {"hardware_mapped": {"augmentation": {"flp": True}}}},
            "recipe.hardware_mapped.augmentation.flp",
            "flip",
        ),
        ({"part": {"form": "a"}}, "part.form", "from"),
        ({"model": {"architecure": "resnet8"}}, "model.architecure", "architecture"),
        ({"preprocessing": {"means": [0.5]}}, "preprocessing.means", "mean"),
    ],
)
def test_the_nearest_field_is_suggested(given: dict[str, Any], param: str, meant: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec({**JOB, **given})
    assert f"{param}: there is no such field; did you mean {meant!r}?" in caught.value.detail


def test_where_none_is_near_all_are_listed() -> None:
    with pytest.raises(InvalidSpec, match=r"golden\.x: there are samples \(got 1\)"):
        parse_spec({**JOB, "golden": {"x": 1}})


def test_a_sweep_suggests_too() -> None:
    with pytest.raises(InvalidSpec, match=r"gird: there is no such field; did you mean 'grid'\?"):
        parse_sweep({"job": JOB, "gird": {}})
    with pytest.raises(InvalidSpec, match=r"the path 'recip\.seed'.* did you mean 'recipe'\?"):
        parse_sweep({"job": JOB, "grid": {"recip.seed": [1]}})


def test_many_unknown_fields_of_any_length_make_a_short_error() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec({**JOB, **{f"field_{i}": i for i in range(5_000)}})
    assert caught.value.detail.count("field_") <= MAX_FAULTS
    assert caught.value.detail.endswith("; and 4,980 more")


def test_every_model_of_a_specification_can_be_found() -> None:
    assert fields_at(JobSpec, ()) == [field.alias or name for name, field in JobSpec.model_fields.items()]
    assert "epochs" in fields_at(JobSpec, ("recipe", "progressive", 0))
