"""What a recipe says of augmentation: words, mappings, and what inputs take which."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from schemas import admits

from dianaq.schemas.augmentation import Augmentation, extent
from dianaq.schemas.recipe import Recipe, Training, merge
from dianaq.schemas.spec import JobSpec

MAPPING = {
    "flip": True,
    "crop": 0.25,
    "rotation": 15.0,
    "cutout": 0.5,
    "mixup": 0.2,
    "time_shift": 0.1,
    "noise": 0.05,
}


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("none", Augmentation()),
        ("flip", Augmentation(flip=True)),
        ("flip_crop", Augmentation(flip=True, crop=1 / 8)),
        ({"mixup": 0.2}, Augmentation(mixup=0.2)),
        (MAPPING, Augmentation(**MAPPING)),
    ],
)
def test_words_and_mappings_become_one_type(written: Any, means: Augmentation) -> None:
    found = Training.model_validate({"augmentation": written})
    assert found.augmentation == means
    assert Training.model_validate_json(found.model_dump_json()) == found
    assert found.model_dump(mode="json")["augmentation"] == Training(augmentation=means).model_dump()["augmentation"]


def test_nothing_is_done_by_default() -> None:
    assert Training().augmentation.active == ()
    assert Augmentation(**MAPPING).active == tuple(MAPPING)


def test_a_word_replaces_all_of_what_it_is_laid_over() -> None:
    base = {"augmentation": {"mixup": 0.2}}
    for word in ("none", "flip"):
        over = {"augmentation": Augmentation.model_validate(word)}
        assert Training.model_validate(merge(base, over)) == Training.model_validate({"augmentation": word})
    added = Training.model_validate(merge(base, {"augmentation": {"noise": 0.1}}))
    assert added.augmentation == Augmentation(mixup=0.2, noise=0.1)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("flips", ["'flips'", "'none', 'flip', 'flip_crop'"]),
        ({"crop": 0.75}, ["crop", "0.5"]),
        ({"rotation": -1}, ["rotation", "0"]),
        ({"cutout": 1.5}, ["cutout", "1"]),
        ({"time_shift": 2}, ["time_shift", "1"]),
        ({"mixup": -0.1}, ["mixup", "0"]),
        ({"noise": float("inf")}, ["noise", "finite"]),
        ({"flop": True}, ["flop"]),
    ],
)
def test_bad_values_are_named(written: Any, words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"float": {"augmentation": written}})
    text = str(caught.value)
    assert "float.augmentation" in text
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("written", ["none", "flip_crop", {"crop": 0.1}, MAPPING, "flips", {"crop": 0.75}, {"a": 1}])
def test_the_schema_admits_what_is_accepted(written: Any) -> None:
    schema = JobSpec.model_json_schema(by_alias=True)
    job = {"model": "m", "dataset": "d", "recipe": {"float": {"augmentation": written}}}
    try:
        JobSpec.model_validate(job)
        accepted = True
    except ValidationError:
        accepted = False
    assert admits(schema, job, schema["$defs"]) == accepted


@pytest.mark.parametrize("name", ["flip", "crop", "rotation", "cutout", "time_shift"])
def test_what_moves_pixels_takes_maps(name: str) -> None:
    found = Augmentation(**{name: MAPPING[name]})
    assert found.fault((3, 32, 32)) is None
    fault = found.fault((640,))
    assert fault is not None
    assert fault[0] == name
    assert "(channels, height, width)" in fault[1]


def test_noise_and_mixup_take_any_input() -> None:
    for shape in ((640,), (1, 10, 49), (2, 3)):
        assert Augmentation(noise=0.1, mixup=0.2).fault(shape) is None


def test_a_fraction_of_less_than_a_pixel_is_a_fault() -> None:
    for name in ("crop", "cutout", "time_shift"):
        fault = Augmentation(**{name: 0.02}).fault((1, 10, 49))
        assert fault is not None
        assert fault[0] == name
        assert "0.0205" in fault[1]
        assert Augmentation(**{name: 0.0205}).fault((1, 10, 49)) is None
    # Time is the last dimension, however large the others are.
    assert Augmentation(time_shift=0.1).fault((1, 49, 9)) is not None
    assert Augmentation(crop=0.1).fault((1, 49, 9)) is None


def test_a_fraction_covers_whole_pixels() -> None:
    assert [extent(1 / 8, side) for side in (28, 32, 96)] == [3, 4, 12]
    assert all(extent(1 / side, side) == 1 for side in range(1, 300))
