"""Which models, datasets and specifications fit each other."""

from __future__ import annotations

from typing import Any

import pytest

from dianaq.errors import DianaqError, InvalidDataset, InvalidModel, InvalidSpec
from dianaq.inspection import check_fit, input_layout
from dianaq.inspection.interface import Own
from dianaq.schemas.resources import Arrangement, DatasetInfo, ModelInfo, SplitInfo, TensorInfo, WeightsInfo
from dianaq.schemas.spec import parse_spec


def model(input_shape: tuple[int, ...] = (3, 8, 8), output_shape: tuple[int, ...] = (10,)) -> ModelInfo:
    return ModelInfo(
        opset=17,
        input=TensorInfo(name="x", shape=input_shape),
        output=TensorInfo(name="y", shape=output_shape),
        operators={"Conv": 2},
        layers=("features.conv1", "features.conv2", "fc"),
        parameters=1,
    )


def dataset(sample: tuple[int, ...] = (8, 8, 3), dtype: str = "uint8", **labels: int | None) -> DatasetInfo:
    """Splits by name with their largest label."""
    return DatasetInfo(
        splits={
            name: SplitInfo(
                samples=5, sample_shape=sample, dtype=dtype, label_min=None if top is None else 0, label_max=top
            )
            for name, top in (labels or {"train": 9}).items()
        }
    )


def spec(**parts: Any) -> Any:
    return parse_spec({"model": "m", "dataset": "d", **parts})


@pytest.mark.parametrize(
    ("sample", "target", "layout", "found"),
    [
        ((3, 8, 8), (3, 8, 8), "auto", (0, 1, 2)),
        ((8, 8, 3), (3, 8, 8), "auto", (2, 0, 1)),
        ((8, 8, 3), (3, 8, 8), "nhwc", (2, 0, 1)),
        ((8, 8, 1), (1, 8, 8), "auto", (2, 0, 1)),
        ((3, 3, 3), (3, 3, 3), "auto", (0, 1, 2)),
        ((3, 3, 3), (3, 3, 3), "nhwc", (2, 0, 1)),
        ((28, 28), (1, 28, 28), "auto", (0, 1)),
        ((28, 28), (1, 28, 28), "nhwc", (0, 1)),
        ((28, 28), (784,), "auto", (0, 1)),
        ((784,), (784,), "nhwc", (0,)),
        ((28, 28, 1), (784,), "nhwc", (0, 1, 2)),
        ((3, 32), (3, 1, 32), "auto", (0, 1)),
        ((32, 3), (3, 1, 32), "auto", (1, 0)),
        ((32, 3), (3, 1, 32), "nhwc", (1, 0)),
        ((8, 8), (8, 1, 8), "auto", (0, 1)),
        ((8, 8), (8, 1, 8), "nhwc", (1, 0)),
        ((32,), (1, 1, 32), "auto", (0,)),
    ],
)
def test_layouts(sample: tuple[int, ...], target: tuple[int, ...], layout: Any, found: tuple[int, ...]) -> None:
    assert input_layout(sample, target, layout) == Arrangement(axes=found, shape=target)


CHANNELS_LAST = Own((4, 4, 4), Arrangement(axes=(2, 0, 1), shape=(4, 4, 4)))


@pytest.mark.parametrize(("layout", "axes"), [("auto", (2, 0, 1)), ("nhwc", (2, 0, 1)), ("nchw", (0, 1, 2))])
def test_where_two_layouts_fit_it_is_the_float_networks_own(layout: Any, axes: tuple[int, ...]) -> None:
    assert input_layout((4, 4, 4), (4, 4, 4), layout, CHANNELS_LAST).axes == axes


def test_a_network_of_channels_last_takes_either_layout() -> None:
    own = Own((5, 6, 3), Arrangement(axes=(2, 0, 1), shape=(3, 5, 6)))
    assert input_layout((5, 6, 3), (3, 5, 6), "auto", own) == own.arrangement
    assert input_layout((3, 5, 6), (3, 5, 6), "auto", own).axes == (0, 1, 2)
    with pytest.raises(InvalidDataset, match=r"\(5, 6, 4\) do not fit the model's input of shape \(5, 6, 3\), or \("):
        input_layout((5, 6, 4), (3, 5, 6), "auto", own)


STEP = {"range": {"bitwidth": 4, "signed": True}, "epochs": 2}


@pytest.mark.parametrize(
    ("sample", "target", "layout"),
    [
        ((8, 8, 3), (3, 8, 8), "nchw"),
        ((3, 8, 8), (3, 8, 8), "nhwc"),
        ((28, 28), (3, 28, 28), "auto"),
        ((28, 28), (785,), "auto"),
        ((32, 32, 3), (3, 8, 8), "auto"),
        ((32, 3), (3, 1, 32), "nchw"),
        ((3, 32), (3, 1, 32), "nhwc"),
    ],
)
def test_shapes_that_do_not_fit(sample: tuple[int, ...], target: tuple[int, ...], layout: Any) -> None:
    with pytest.raises(InvalidDataset) as caught:
        input_layout(sample, target, layout)
    assert str(sample) in caught.value.detail
    assert str(target) in caught.value.detail


@pytest.mark.parametrize(
    ("parts", "data"),
    [
        ({}, dataset()),
        ({"preprocessing": {"mean": [0.5], "std": [0.1, 0.2, 0.3]}}, dataset()),
        ({"recipe": {"preset": "ptq"}}, dataset(train=None)),
        ({"recipe": {"preset": "qat"}}, dataset(train=9, val=9, test=None)),
        ({"mapping": {"layers": {"fc": "digital"}}}, dataset()),
    ],
)
def test_what_fits(parts: dict[str, Any], data: DatasetInfo) -> None:
    check_fit(spec(**parts), model(), data)


@pytest.mark.parametrize(
    ("recipe", "fewest"),
    [
        ({"hardware_mapped": {"epochs": 2, "warmup_epochs": 2}}, "2 epochs"),
        ({"hardware_mapped": {"epochs": 1, "warmup_epochs": 5, "schedule": "constant"}}, "1 epoch"),
        ({"hardware_mapped": {"epochs": 9, "warmup_epochs": 3}, "progressive": [STEP]}, "2 epochs"),
        ({"hardware_mapped": {"epochs": 0, "warmup_epochs": 3}, "progressive": [STEP]}, "2 epochs"),
    ],
)
def test_a_warm_up_ends_before_the_training(recipe: dict[str, Any], fewest: str) -> None:
    with pytest.raises(InvalidSpec, match=f"of a training that has {fewest}:") as caught:
        check_fit(spec(recipe=recipe), model(), dataset())
    assert caught.value.param == "recipe.hardware_mapped.warmup_epochs"
    shorter = {**recipe, "hardware_mapped": {**recipe["hardware_mapped"], "warmup_epochs": 0.9}}
    check_fit(spec(recipe=shorter), model(), dataset())
    check_fit(spec(recipe={"float": {"warmup_epochs": 3}}), model(), dataset())  # it is not trained


@pytest.mark.parametrize("output", [(3, 8, 8), (192,)])
@pytest.mark.parametrize("data", [dataset(train=None), dataset(train=0, test=1), dataset(train=1, val=None)])
def test_an_autoencoder_takes_anomaly_labels_or_none_even_to_train(output: tuple[int, ...], data: DatasetInfo) -> None:
    check_fit(spec(task="reconstruction", recipe={"preset": "qat"}), model(output_shape=output), data)


def test_labels_of_anomalies_alone_are_refused() -> None:
    split = SplitInfo(samples=5, sample_shape=(8, 8, 3), dtype="uint8", label_min=1, label_max=1)
    data = DatasetInfo(splits={**dataset().splits, "train": dataset(train=0).splits["train"], "val": split})
    with pytest.raises(InvalidDataset, match=r"y_val labels all 5 samples as anomalies.*at least one") as caught:
        check_fit(spec(task="reconstruction"), model(output_shape=(192,)), data)
    assert caught.value.param == "y_val"


@pytest.mark.parametrize(
    ("parts", "network", "data", "error", "words"),
    [
        ({}, model(), dataset((9, 8, 3)), InvalidDataset, ["(9, 8, 3)", "(3, 8, 8)"]),
        ({}, model(), dataset(train=9, test=10), InvalidDataset, ["y_test", "10", "10 classes, 0 to 9"]),
        ({}, model(output_shape=(10, 4, 4)), dataset(), InvalidModel, ["'y'", "(batch, 10, 4, 4)"]),
        (
            {"task": "reconstruction"},
            model(),
            dataset(train=None),
            InvalidModel,
            ["'y'", "(batch, 10)", "'x'", "(batch, 3, 8, 8)"],
        ),
        (
            {"task": "reconstruction"},
            model(output_shape=(192,)),
            dataset(train=None, test=2),
            InvalidDataset,
            ["y_test", "the label 2", "0 (normal) or 1 (anomaly)"],
        ),
        (
            {"recipe": {"hardware_exact": {"epochs": 2}}},
            model(),
            dataset(train=None),
            InvalidSpec,
            ["recipe.hardware_exact.epochs", "no labels y_train"],
        ),
        ({"recipe": {"preset": "qat"}}, model(), dataset(train=1, val=None), InvalidSpec, ["no labels y_val"]),
        ({"preprocessing": {"mean": [0, 0]}}, model(), dataset(), InvalidSpec, ["preprocessing.mean", "2", "3"]),
        (
            {"preprocessing": {"std": [1, 1, 1]}},
            model((192,)),
            dataset(),
            InvalidSpec,
            ["preprocessing.std", "one value"],
        ),
        (
            {"recipe": {"float": {"epochs": 1, "augmentation": "flip_crop"}}},
            model((4,)),
            dataset((4,), "float32"),
            InvalidSpec,
            ["recipe.float.augmentation.flip", "(4,)"],
        ),
        (
            {"recipe": {"hardware_exact": {"epochs": 1, "distillation": 1, "augmentation": {"crop": 0.1}}}},
            model(),
            dataset(),
            InvalidSpec,
            ["recipe.hardware_exact.augmentation.crop is 0.1", "0.125 is the least", "(3, 8, 8)"],
        ),
        (
            {"mapping": {"layers": {"features.conv3": "digital"}}},
            model(),
            dataset(),
            InvalidSpec,
            ["'features.conv3'", "did you mean", "'features.conv1'"],
        ),
    ],
)
def test_what_does_not_fit(
    parts: dict[str, Any], network: ModelInfo, data: DatasetInfo, error: type[DianaqError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        check_fit(spec(**parts), network, data)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert caught.value.param


WEIGHTS = WeightsInfo(format="safetensors", tensors=1, bytes=4)


def zoo(**changes: Any) -> Any:
    network = {"architecture": "resnet8", "input_shape": [3, 8, 8], "classes": 10, "weights": "w", **changes}
    return spec(model=network, mapping={"layers": {"known.in.the.job": "digital"}})


def test_a_zoo_network_fits_by_its_specification() -> None:
    check_fit(zoo(), WEIGHTS, dataset())
    random = {"architecture": "cifarnet", "input_shape": [3, 8, 8], "classes": 10}
    check_fit(spec(model=random, recipe={"float": {"epochs": 1}}), None, dataset())


@pytest.mark.parametrize(
    ("network", "file", "data", "error", "words"),
    [
        (zoo(), WEIGHTS, dataset((9, 8, 3)), InvalidDataset, ["(9, 8, 3)", "(3, 8, 8)"]),
        (zoo(classes=9), WEIGHTS, dataset(), InvalidDataset, ["label 9", "9 classes"]),
        (zoo(), model(), dataset(), InvalidModel, ["resnet8", "safetensors", "without an architecture"]),
        (spec(), WEIGHTS, dataset(), InvalidModel, ["weights (safetensors)", "--zoo", "ONNX"]),
        (
            zoo(architecture="autoencoder", input_shape=[192], classes=None),
            WEIGHTS,
            dataset(),
            InvalidSpec,
            ["'classification'", "autoencoder"],
        ),
    ],
)
def test_zoo_networks_that_do_not_fit(
    network: Any, file: ModelInfo | WeightsInfo, data: DatasetInfo, error: type[DianaqError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        check_fit(network, file, data)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail
    assert caught.value.param


def test_pixels_are_stored_as_bytes() -> None:
    job = spec(interface={"input": "pixels"})
    check_fit(job, model(), dataset())
    with pytest.raises(InvalidSpec, match=r"x_train is float32; pixels are uint8.*'float' or 'int8'") as caught:
        check_fit(job, model(), dataset(dtype="float32"))
    assert caught.value.param == "interface.input"
    check_fit(spec(interface={"input": "int8", "output": "int8"}), model(), dataset(dtype="float32"))


NODES = ("conv", "relu", "join", "fc")


@pytest.mark.parametrize("pattern", ["conv", "re*", "?oin", "input", "fc_identity", "*"])
def test_a_rule_of_quantisers_may_be_for_whatever_a_network_computes(pattern: str) -> None:
    rule = {"layers": pattern, "activations": {"range": {"bitwidth": 4, "signed": True}}}
    made = model().model_copy(update={"nodes": NODES})
    check_fit(spec(recipe={"quantisers": {"rules": [rule]}}), made, dataset())


def test_a_rule_of_quantisers_that_names_no_layer_is_refused_with_suggestions() -> None:
    given = {"activations": {"range": {"bitwidth": 4, "signed": True}}}
    job = spec(recipe={"quantisers": {"rules": [given, {"layers": "cnov", **given}]}})
    with pytest.raises(
        InvalidSpec, match=r"rules\.1 is for 'cnov', which is no layer .* did you mean 'conv'\? It has 4 layers"
    ) as caught:
        check_fit(job, model().model_copy(update={"nodes": NODES}), dataset())
    assert caught.value.param == "recipe.quantisers.rules.1.layers"
    check_fit(job, model(), dataset())  # what an earlier version inspected does not say
    later = job.model_copy(update={"start_from": "job_1/hardware_mapped"})  # by then no quantiser is chosen
    check_fit(later, model().model_copy(update={"nodes": NODES}), dataset())
