"""Which labels each task takes, and what its refusals say to do."""

from __future__ import annotations

from typing import Any

import pytest

from dianaq.errors import InvalidDataset, InvalidSpec
from dianaq.inspection import check_fit
from dianaq.schemas.resources import DatasetInfo, SplitInfo
from dianaq.schemas.spec import parse_spec

from .test_fit import model, spec

INTEGERS = {"label_dtype": "int64", "label_shape": (), "label_kind": "integers", "label_min": 0, "label_max": 9}


def labelled(*splits: str, **labels: Any) -> DatasetInfo:
    info = SplitInfo(samples=5, sample_shape=(8, 8, 3), dtype="uint8", **labels)
    return DatasetInfo(splits=dict.fromkeys(splits or ("train", "val"), info))


def floats(*shape: int, kind: str = "numbers") -> DatasetInfo:
    return labelled(label_dtype="float32", label_shape=shape, label_kind=kind)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (floats(kind="whole"), ["y_train is float32", "y_train.astype('int64')"]),
        (floats(), ["y_train is float32", "must be integers", "'regression'"]),
        (floats(10, kind="one_hot"), ["one-hot", "(5, 10)", "y_train.argmax(1)"]),
        (labelled(label_dtype="int64", label_shape=(10,), label_kind="one_hot"), ["int64", "y_train.argmax(1)"]),
        (floats(10), ["(5, 10)", "(samples,)"]),
        (labelled(**{**INTEGERS, "label_min": -1}), ["y_train holds the label -1", "0 and above"]),
    ],
)
@pytest.mark.parametrize(("task", "output"), [("classification", (10,)), ("reconstruction", (192,))])
def test_labels_that_are_no_class_numbers(data: DatasetInfo, words: list[str], task: str, output: Any) -> None:
    with pytest.raises(InvalidDataset) as caught:
        check_fit(spec(task=task), model(output_shape=output), data)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert "astype" not in caught.value.detail or "argmax" not in caught.value.detail
    assert caught.value.param == "y_train"


@pytest.mark.parametrize(
    ("output", "data"),
    [
        ((10,), floats(10)),
        ((10,), floats(10, kind="one_hot")),
        ((1,), floats()),
        ((1,), floats(1)),
        ((1,), labelled(**{**INTEGERS, "label_min": -5})),
        ((4, 2, 2), floats(4, 2, 2)),
    ],
)
def test_labels_of_a_regression(output: tuple[int, ...], data: DatasetInfo) -> None:
    check_fit(spec(task="regression", recipe={"preset": "qat"}), model(output_shape=output), data)


@pytest.mark.parametrize(
    ("output", "data", "words"),
    [
        ((10,), floats(9), ["y_train", "(5, 9)", "'y'", "(samples, 10)"]),
        ((10,), floats(), ["(5,)", "(samples, 10)"]),
        ((1,), floats(2), ["(5, 2)", "(samples, 1) or (samples,)"]),
        ((4, 2, 2), floats(16), ["(5, 16)", "(samples, 4, 2, 2)"]),
    ],
)
def test_labels_in_another_shape_than_the_output(output: tuple[int, ...], data: DatasetInfo, words: list[str]) -> None:
    with pytest.raises(InvalidDataset) as caught:
        check_fit(spec(task="regression"), model(output_shape=output), data)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail


def test_a_regression_is_trained_on_labels_or_on_the_float_networks_outputs_alone() -> None:
    bare = labelled()
    check_fit(spec(task="regression"), model(), bare)
    check_fit(spec(task="regression", recipe={"preset": "ptq-tuned"}), model(), bare)
    with pytest.raises(InvalidSpec, match="no labels y_train"):
        check_fit(spec(task="regression", recipe={"preset": "qat"}), model(), bare)


@pytest.mark.parametrize("preset", ["ptq", "ptq-tuned", "qat-fast", "qat", "qat-best"])
@pytest.mark.parametrize("output", [(10,), (18, 4, 4)])
@pytest.mark.parametrize("data", [labelled(), floats(3), labelled(**INTEGERS)])
def test_an_imitation_takes_any_output_and_no_labels(preset: str, output: tuple[int, ...], data: DatasetInfo) -> None:
    check_fit(spec(task="imitation", recipe={"preset": preset}), model(output_shape=output), data)


def test_an_imitation_trains_no_float_network() -> None:
    with pytest.raises(InvalidSpec, match=r"recipe\.float\.epochs is 3, but an imitation"):
        parse_spec({"model": "m", "dataset": "d", "task": "imitation", "recipe": {"float": {"epochs": 3}}})


@pytest.mark.parametrize("moving", [{"flip": True}, {"crop": 0.2}, {"rotation": 5}, {"time_shift": 0.2}])
def test_what_moves_a_sample_moves_what_its_numbers_say(moving: dict[str, Any]) -> None:
    def job(task: str, **training: Any) -> Any:
        training = {"epochs": 1, "augmentation": {**moving, "mixup": 0.2, "noise": 0.1}, **training}
        return spec(task=task, recipe={"hardware_mapped": training})

    (name,) = moving
    with pytest.raises(InvalidSpec, match="set distillation to 1") as caught:
        check_fit(job("regression", distillation=0.5), model(), floats(10))
    assert caught.value.param == f"recipe.hardware_mapped.augmentation.{name}"
    check_fit(job("regression", distillation=1), model(), floats(10))
    check_fit(job("imitation"), model(), floats(10))
    check_fit(job("classification"), model(), labelled(**INTEGERS))
    plain = {"epochs": 1, "augmentation": {"mixup": 0.2, "cutout": 0.2, "noise": 0.1}}
    check_fit(spec(task="regression", recipe={"hardware_mapped": plain}), model(), floats(10))
