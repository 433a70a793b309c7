"""Networks of the zoo, and jobs that go on from others, in a job specification."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dianaq import Model, WeightsInfo, ZooModel
from dianaq.errors import InvalidSpec
from dianaq.schemas.spec import JobSpec, checkpoint_of, parse_spec

ZOO: dict[str, Any] = {"architecture": "resnet8", "input_shape": [3, 32, 32], "classes": 10}
TRAINED = {"float": {"epochs": 1}}


def test_a_zoo_network_survives_the_wire() -> None:
    spec = parse_spec({"model": {**ZOO, "width": 0.5, "weights": "mdl_1"}, "dataset": "d"})
    assert spec.model == ZooModel(
        architecture="resnet8", input_shape=(3, 32, 32), classes=10, width=0.5, weights="mdl_1"
    )
    assert spec.upload == "mdl_1"
    assert JobSpec.model_validate_json(spec.model_dump_json(by_alias=True)) == spec


def test_an_uploaded_network_stays_a_name() -> None:
    assert parse_spec({"model": "mdl_1", "dataset": "d"}).upload == "mdl_1"


def test_uploaded_weights_stand_for_their_id() -> None:
    info = WeightsInfo(format="safetensors", tensors=1, bytes=4)
    model = Model(id="mdl_2", name="n", sha256="0", size=1, created=datetime(2026, 1, 1, tzinfo=UTC), info=info)
    zoo = ZooModel.model_validate({**ZOO, "weights": model})
    assert zoo.weights == "mdl_2"
    assert JobSpec(model=zoo, dataset="d").upload == "mdl_2"


def test_the_autoencoder_has_no_classes() -> None:
    assert ZooModel(architecture="autoencoder", input_shape=(640,)).classes is None


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"architecture": "resnet9"}, "model.architecture", ["resnet8", "cifarnet", "'resnet9'"]),
        (
            {"input_shape": [3, 32]},
            "model.input_shape",
            ["resnet8 takes images", "(channels, height, width)", "(3, 32)"],
        ),
        ({"input_shape": []}, "model.input_shape", ["not ()"]),
        ({"input_shape": [640]}, "model.input_shape", ["resnet8 takes images", "not (640,)"]),
        (
            {"architecture": "autoencoder", "classes": None},
            "model.input_shape",
            ["autoencoder takes vectors (values,)"],
        ),
        (
            {"architecture": "lenet5", "input_shape": [1, 28, 11]},
            "model.input_shape",
            ["at least 12 x 12, not 28 x 11"],
        ),
        ({"architecture": "cifarnet", "input_shape": [1, 7, 8]}, "model.input_shape", ["at least 8 x 8, not 7 x 8"]),
        ({"architecture": "ds_cnn", "input_shape": [1, 1, 1]}, "model.input_shape", ["at least 1 x 2, not 1 x 1"]),
        ({"input_shape": [3, 0, 32]}, "model.input_shape.1", ["greater than 0"]),
        ({"input_shape": [3, 1024, 1024]}, "model.input_shape", ["3,145,728 values", "at most 1,048,576"]),
        ({"classes": 1}, "model.classes", ["greater than or equal to 2"]),
        ({"classes": 10**9}, "model.classes", ["65536"]),
        ({"classes": None}, "model.classes", ["resnet8 needs the number of its outputs"]),
        (
            {"architecture": "autoencoder", "input_shape": [640]},
            "model.classes",
            ["the autoencoder has no classes", "10"],
        ),
        ({"width": 0}, "model.width", ["greater than 0"]),
        ({"width": 4.5}, "model.width", ["less than or equal to 4"]),
        ({"weights": ""}, "model.weights", ["at least 1 item"]),
        ({"depth": 3}, "model.depth", ["there is no such field; did you mean 'width'?"]),
    ],
)
def test_refuses_networks_that_cannot_be(change: dict[str, Any], param: str, words: list[str]) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec({"model": {**ZOO, **change}, "dataset": "d", "recipe": TRAINED})
    assert caught.value.param == param
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert "<" not in caught.value.detail


def test_random_weights_need_training() -> None:
    with pytest.raises(InvalidSpec, match=r"model\.weights is missing.*recipe\.float\.epochs"):
        parse_spec({"model": ZOO, "dataset": "d", "recipe": {"preset": "qat"}})
    assert parse_spec({"model": ZOO, "dataset": "d", "recipe": TRAINED}).upload is None
    # A checkpoint brings weights with it.
    assert parse_spec({"model": ZOO, "dataset": "d", "start_from": "job_1/float"}).upload is None


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (None, None),
        ("job_1/float", ("job_1", "float")),
        ("out/of the/folder/hardware_exact", ("out/of the/folder", "hardware_exact")),
        ("/bundle/fake_quantised", ("/bundle", "fake_quantised")),
    ],
)
def test_where_a_job_starts(text: str | None, start: tuple[str, str] | None) -> None:
    assert parse_spec({"model": "m", "dataset": "d", "start_from": text}).start == start


@pytest.mark.parametrize("text", ["job_1", "job_1/", "/float", "float", "job_1/integerise", "job_1/float/"])
def test_refuses_what_is_no_start(text: str) -> None:
    with pytest.raises(InvalidSpec, match="must be <job id>/<iteration> with one of float") as caught:
        parse_spec({"model": "m", "dataset": "d", "start_from": text})
    assert caught.value.param == "start_from"


@pytest.mark.parametrize(
    ("start", "trained", "named"),
    [
        ("float", "float", "float"),
        ("hardware_mapped", "hardware_mapped", "hardware_mapped"),
        ("hardware_exact", "fake_quantised", "fake_quantised"),
        ("float", "fake_quantised", None),
        ("hardware_mapped", "hardware_exact", None),
    ],
)
def test_a_skipped_iteration_cannot_be_trained(start: str, trained: str, named: str | None) -> None:
    data = {"model": "m", "dataset": "d", "recipe": {trained: {"epochs": 3}}, "start_from": f"job_1/{start}"}
    if named is None:
        parse_spec(data)
        return
    with pytest.raises(InvalidSpec, match=rf"recipe\.{named}\.epochs is 3") as caught:
        parse_spec(data)
    assert caught.value.param == "start_from"


def test_an_error_in_the_recipe_is_told_besides_start_from() -> None:
    with pytest.raises(InvalidSpec, match=r"recipe\.seed"):
        parse_spec({"model": "m", "dataset": "d", "recipe": {"seed": -1}, "start_from": "job_1/float"})


def test_networks_are_compared_without_their_weights() -> None:
    zoo = ZooModel.model_validate({**ZOO, "weights": "a"})
    assert zoo.same_network(ZooModel.model_validate({**ZOO, "weights": "b"}))
    for change in ({"architecture": "resnet20"}, {"input_shape": [1, 32, 32]}, {"classes": 9}, {"width": 2}):
        assert not zoo.same_network(ZooModel.model_validate({**ZOO, **change}))


def test_the_schema_knows_both_forms() -> None:
    schema = JobSpec.model_json_schema(by_alias=True)
    assert schema["properties"]["model"]["oneOf"] == [
        {"type": "string", "minLength": 1},
        {"$ref": "#/$defs/ZooModel"},
    ]
    assert "mobilenet_v2" in json.dumps(schema["$defs"]["ZooModel"])
    assert "start_from" in schema["properties"]


def test_checkpoints_are_members_of_the_bundle() -> None:
    assert checkpoint_of("hardware_mapped") == "checkpoints/hardware_mapped.pt"
