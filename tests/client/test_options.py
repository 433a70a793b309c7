"""From options and YAML to a job specification: preset, then file, then options."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dianaq.cli.options import add_job_options, add_scheduling_options, job_spec
from dianaq.errors import InvalidSpec
from dianaq.schemas.recipe import Recipe
from dianaq.schemas.spec import JobSpec, NetworkInterface, ZooModel


def parse(*options: str, model: str | None = "m") -> JobSpec:
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    return job_spec(parser.parse_args(options), model=model, dataset="d")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def test_defaults_to_post_training() -> None:
    assert parse() == JobSpec(model="m", dataset="d", recipe=Recipe(preset="ptq"))


def test_options() -> None:
    spec = parse(
        *("--preset", "qat", "--epochs", "float=3", "hardware_exact=5", "--epochs", "fake_quantised=1"),
        *("--mean", "-0.5", "0", ".25", "--std", "2", "--calibration", "64", "--seed", "7"),
    )
    assert spec.recipe.float_.epochs == 3
    assert spec.recipe.hardware_exact.epochs == 5
    assert spec.recipe.hardware_exact.learning_rate == Recipe(preset="qat").hardware_exact.learning_rate
    assert spec.recipe.fake_quantised.epochs == 1
    assert (spec.recipe.calibration.samples, spec.recipe.seed) == (64, 7)
    assert (spec.preprocessing.mean, spec.preprocessing.std) == ((-0.5, 0, 0.25), (2,))
    assert spec.task == "classification"


def test_substitutions_add_up_and_beat_the_file(recipe: Path) -> None:
    recipe.write_text("model: m\nsubstitute: {hardswish: relu, gelu: relu}\n")
    options = ("--substitute", "hardswish=relu6", "silu=relu", "--substitute", "elu=relu")
    found = parse("--recipe", str(recipe), *options).substitute
    assert found == {"hardswish": "relu6", "gelu": "relu", "silu": "relu", "elu": "relu"}
    with pytest.raises(InvalidSpec, match=r"substitute\.swish.*did you mean 'silu'"):
        parse("--substitute", "swish=relu")
    with pytest.raises(SystemExit):
        parse("--substitute", "hardswish")


def test_precedence(recipe: Path) -> None:
    recipe.write_text("preset: qat\nseed: 3\nhardware_exact: {epochs: 7, batch_size: 32}\n")
    assert parse("--recipe", str(recipe)).recipe.hardware_exact.epochs == 7
    spec = parse("--recipe", str(recipe), "--epochs", "hardware_exact=1", "--preset", "ptq")
    assert (spec.recipe.preset, spec.recipe.seed) == ("ptq", 3)
    assert (spec.recipe.hardware_exact.epochs, spec.recipe.hardware_exact.batch_size) == (1, 32)


def test_the_task_is_an_option_that_beats_the_file(recipe: Path) -> None:
    recipe.write_text("task: reconstruction\n")
    assert parse("--recipe", str(recipe)).task == "reconstruction"
    assert parse("--recipe", str(recipe), "--task", "classification").task == "classification"
    assert parse("--task", "reconstruction").task == "reconstruction"


def test_what_the_exported_network_takes_and_gives(recipe: Path) -> None:
    assert parse().interface == NetworkInterface(input="float", output="float")
    assert parse("--input-type", "pixels").interface == NetworkInterface(input="pixels")
    recipe.write_text("interface: {input: int8, output: int8}\n")
    assert parse("--recipe", str(recipe), "--output-type", "float").interface == NetworkInterface(input="int8")


def test_part_of_a_specification(recipe: Path) -> None:
    recipe.write_text("model: other\npreprocessing: {std: [0.5]}\nrecipe: {float: {epochs: 2, learning_rate: 1e-3}}\n")
    spec = parse("--recipe", str(recipe), "--mean", "0.5")
    assert (spec.model, spec.preprocessing.mean, spec.preprocessing.std) == ("m", (0.5,), (0.5,))
    assert spec.recipe.float_.learning_rate == 0.001
    assert spec.recipe.preset == "ptq"


def test_an_empty_file_changes_nothing(recipe: Path) -> None:
    recipe.write_text("# nothing yet\n")
    assert parse("--recipe", str(recipe)) == parse()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed: 3", ["unknown key 'sed': did you mean 'seed' below recipe?"]),
        ("recipe: {}\nseed: 3", ["unknown key 'seed'", "preprocessing"]),
        ("recipe: {sed: 3}", ["recipe.sed"]),
        ("recipe: 5", ["recipe"]),
        ("[1, 2]", ["a mapping", "list"]),
        ("a: [1", ["not YAML", "line"]),
        ("!!python/object/apply:os.system [ls]", ["not YAML"]),
        ("preset: fast", ["recipe.preset", "'ptq', 'ptq-tuned', 'qat-fast', 'qat' or 'qat-best'", "'fast'"]),
        ("float: {learning_rate: -1}", ["recipe.float.learning_rate", "greater than 0", "-1"]),
        ("mapping: {layers: {conv: quantum}}", ["mapping.layers.conv", "digital"]),
    ],
)
def test_refuses_a_bad_file(recipe: Path, text: str, words: list[str]) -> None:
    recipe.write_text(text)
    with pytest.raises(InvalidSpec) as caught:
        parse("--recipe", str(recipe))
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail


def test_refuses_a_missing_file(recipe: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"recipe\.yaml cannot be read: No such file"):
        parse("--recipe", str(recipe))


@pytest.mark.parametrize("value", ["float", "float=", "float=-1", "float=1.5", "integer=3", "=3"])
def test_refuses_bad_epochs(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--epochs", value)
    assert f"'{value}' is not ITERATION=N" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--seed", "-1"), "recipe.seed"),
        (("--calibration", "0"), "recipe.calibration.samples"),
        (("--std", "0"), "preprocessing.std"),
        (("--mean", "nan"), "preprocessing.mean"),
        (("--mean", "1", "2", "--std", "1", "2", "3"), "mean has 2 values and std has 3"),
    ],
)
def test_refuses_bad_values(options: tuple[str, ...], word: str) -> None:
    with pytest.raises(InvalidSpec, match=word):
        parse(*options)


ZOO = ("--zoo", "mobilenet_v1", "--input-shape", "3", "96", "96", "--classes", "2")


def test_a_network_of_the_zoo() -> None:
    spec = parse(*ZOO, "--width", "0.25")
    expected = ZooModel(architecture="mobilenet_v1", input_shape=(3, 96, 96), classes=2, width=0.25, weights="m")
    assert spec.model == expected
    random = parse(*ZOO, "--epochs", "float=1", model=None).model
    assert random == expected.model_copy(update={"width": 1.0, "weights": None})


def test_a_network_of_the_zoo_in_the_file(recipe: Path) -> None:
    recipe.write_text(
        "model: {architecture: resnet8, input_shape: [3, 8, 8], classes: 10, weights: mine}\nstart_from: a/float\n"
    )
    found = parse("--recipe", str(recipe), model=None)
    assert found.model == ZooModel(architecture="resnet8", input_shape=(3, 8, 8), classes=10, weights="mine")
    assert found.start_from == "a/float"
    over = parse("--recipe", str(recipe), "--classes", "4", "--zoo", "cifarnet", "--start-from", "b/fake_quantised")
    assert over.model == ZooModel(architecture="cifarnet", input_shape=(3, 8, 8), classes=4, weights="m")
    assert over.start_from == "b/fake_quantised"


@pytest.mark.parametrize(
    ("options", "model", "words"),
    [
        ((), None, "no network is given; name an ONNX file, or --zoo"),
        (("--classes", "3", "--input-shape", "1"), "m", "--input-shape, --classes describes.*add --zoo"),
        (("--zoo", "resnet8"), "m", r"model\.input_shape: Field required"),
        ((*ZOO, "--width", "9"), "m", r"model\.width"),
        (ZOO, None, r"model\.weights is missing"),
        (("--start-from", "job_1"), "m", "start_from: .*must be <job id>/<iteration>"),
        (("--start-from", "job_1/hardware_mapped", "--preset", "qat"), "m", r"recipe\.hardware_mapped\.epochs is 12"),
    ],
)
def test_refuses_bad_networks_and_starts(options: tuple[str, ...], model: str | None, words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        parse(*options, model=model)


def test_refuses_an_unknown_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--zoo", "vgg")
    assert "'cifarnet'" in capsys.readouterr().err


def test_scheduling_is_the_services_alone(recipe: Path) -> None:
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    add_scheduling_options(parser)
    recipe.write_text("{task: classification, device: gpu, priority: low}")
    args = parser.parse_args(["--recipe", str(recipe), "--priority", "high", "--deadline-hours", "1.5"])
    spec = job_spec(args, model="m", dataset="d")
    assert (spec.device, spec.priority, spec.deadline_hours) == ("gpu", "high", 1.5)
    with pytest.raises(InvalidSpec) as caught:
        job_spec(parser.parse_args(["--deadline-hours", "0"]), model="m", dataset="d")
    assert caught.value.param == "deadline_hours"
    assert parse().device == "any"
