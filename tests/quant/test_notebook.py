"""The library used from Python: modules, zoo networks, one's own editors, and jobs on the analog core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dianaq import ZooModel
from dianaq.errors import DianaqError, InvalidDataset, InvalidModel, InvalidSpec
from dianaq_quant import Editor, Point, Rejection, quantise
from dianaq_quant.graph.surgery import calls
from dianaq_quant.zoo import build


class Small(nn.Module):
    """Calls as users write them: one ReLU for all, `+`, view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.first(x)))
        z = self.act(self.inner(y) + y)
        return self.head(F.adaptive_avg_pool2d(z, 1).view(x.size(0), -1))


def arrays(samples: int = 64, size: int = 8) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (samples, size, size, 3)).astype(np.uint8)
    return {"x_train": x, "y_train": random.integers(0, 4, samples)}


def module() -> Small:
    torch.manual_seed(0)
    return Small()


def test_a_module_is_quantised_and_left_as_it_was(tmp_path: Path) -> None:
    network = module()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = quantise(network, arrays(), tmp_path / "out", input_shape=(3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (tmp_path / "out" / "htvm" / "model.onnx").is_file()
    assert result.report["verification"]["data_samples"] > 0
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(result.exact(x), result.integer(x))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "htvm" / "model.onnx"))
    for sample in x:
        assert np.array_equal(
            session.run(None, {"input": sample[None].numpy()})[0], result.exact(sample[None]).detach()
        )


def test_without_input_shape_samples_are_the_input(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 1, (40, 6)).astype(np.float32)
    result = quantise(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), {"x_train": x}, tmp_path / "out")
    assert result.report["layers"][0]["shape"] == [6]


def test_a_module_that_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="label"):
        quantise(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), arrays(), tmp_path / "out", input_shape=(3, 8, 8))
    assert not (tmp_path / "out").exists()


def test_a_zoo_network_takes_its_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build("resnet8", input_shape=(3, 8, 8), classes=4, width=0.5)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    zoo = ZooModel(architecture="resnet8", input_shape=(3, 8, 8), classes=4, width=0.5, weights="weights.pt")
    made = quantise(network, arrays(), tmp_path / "module", input_shape=(3, 8, 8))
    loaded = quantise(zoo, arrays(), tmp_path / "zoo", weights=tmp_path / "weights.pt")
    files = [folder / "htvm" / "model.onnx" for folder in (made.folder, loaded.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_zoo_network_without_weights_is_trained_from_its_seed(tmp_path: Path) -> None:
    zoo = ZooModel(architecture="lenet5", input_shape=(3, 16, 16), classes=4)
    results = [
        quantise(zoo, arrays(size=16), tmp_path / name, recipe={"float": {"epochs": 1}, "seed": seed})
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    bytes_ = [(r.folder / "htvm" / "model.onnx").read_bytes() for r in results]
    assert bytes_[0] == bytes_[1] != bytes_[2]
    with pytest.raises(InvalidSpec, match=r"recipe\.float\.epochs"):
        quantise(zoo, arrays(size=16), tmp_path / "d")


def test_a_zoo_networks_weights_may_be_named_in_either_place(tmp_path: Path) -> None:
    network = build("cifarnet", input_shape=(3, 8, 8), classes=4, width=0.25)
    torch.save(network.state_dict(), tmp_path / "weights")
    zoo = ZooModel(architecture="cifarnet", input_shape=(3, 8, 8), classes=4, width=0.25)
    within = zoo.model_copy(update={"weights": str(tmp_path / "weights")})
    results = [
        quantise(zoo, arrays(), tmp_path / "a", weights=tmp_path / "weights"),
        quantise(within, arrays(), tmp_path / "b"),
    ]
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(results[0].integer(x), results[1].integer(x))
    for result in results:
        with torch.no_grad():
            reference = network(x)
            assert (result.exact(x) - reference).abs().max() < 0.2 * reference.abs().max()


ONNX = "network.onnx"


@pytest.mark.parametrize(
    ("arguments", "error", "param", "message"),
    [
        ({"weights": "w.pt"}, InvalidSpec, "weights", r"'w\.pt' is given, but only a ZooModel takes .*\(Small\)"),
        ({"network": ONNX, "weights": "w.pt"}, InvalidSpec, "weights", "only a ZooModel takes"),
        ({"network": ONNX}, InvalidModel, "network", r"there is no file network\.onnx"),
        ({"data": "none.npz"}, InvalidDataset, "data", r"there is no file none\.npz"),
        ({"data": {"x_train": np.array([{}, 1])}}, InvalidDataset, "x_train", "x_train is an array of Python objects"),
        (
            {"editors": {"canonicalize": []}},
            InvalidSpec,
            "editors.canonicalize",
            "'canonicalize': .* are import, canonicalise",
        ),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(
    tmp_path: Path, arguments: dict[str, Any], error: type[DianaqError], param: str, message: str
) -> None:
    options = {"network": module(), "data": arrays(), "input_shape": (3, 8, 8), **arguments}
    with pytest.raises(error, match=message) as caught:
        quantise(options.pop("network"), options.pop("data"), tmp_path / "out", **options)
    assert caught.value.param == param
    assert not (tmp_path / "out").exists()


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    zoo = ZooModel(architecture="resnet8", input_shape=(3, 8, 8), classes=4)
    for network, weights in ((zoo, "w.pt"), (zoo.model_copy(update={"weights": "w.pt"}), None)):
        with pytest.raises(InvalidModel, match=r"there is no file w\.pt"):
            quantise(network, arrays(), tmp_path / "out", weights=weights)


def test_arrays_are_all_that_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    savez = np.savez
    monkeypatch.setattr(np, "savez", lambda path, **members: (saved.extend(members), savez(path, **members)))
    quantise(module(), arrays(), tmp_path / "out", input_shape=(3, 8, 8))
    assert sorted(saved) == ["x_train", "y_train"]  # to older numpy, every keyword is an array


def test_the_edits_of_the_import_are_reported(tmp_path: Path) -> None:
    result = quantise(module(), arrays(), tmp_path / "out", input_shape=(3, 8, 8))
    edits = {(e["editor"], e["node"], e["applied"]) for e in result.report["edits"] if e["stage"] == "import"}
    assert {("ModuliseAdditions", "add", True), ("SeparateCalls", "act_1", True)} <= edits


class Halve(Editor):
    """`f(x) -> f(x) / 2` for the first layer: a user's own editor."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        first, *others = calls(network, nn.Conv2d)
        yield Point((first[0],), "halved")
        for node, _ in others:
            yield Rejection(node, "not the first")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        layer = network.get_submodule(str(point.nodes[0].target))
        assert isinstance(layer, nn.Conv2d)
        with torch.no_grad():
            layer.weight.mul_(0.5)


def test_a_users_own_editor_runs_before_its_stage_and_is_reported(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    result = quantise(network, arrays(), tmp_path / "out", input_shape=(3, 8, 8), editors={"canonicalise": [Halve()]})
    own = [(e["stage"], e["note"], e["applied"]) for e in result.report["edits"] if e["editor"] == "Halve"]
    assert own == [("canonicalise", "halved", True)]
    plain = quantise(network, arrays(), tmp_path / "plain", input_shape=(3, 8, 8))
    x = torch.rand(4, 3, 8, 8)
    assert not torch.equal(plain.exact(x), result.exact(x))


ANALOG = {"default": "analog", "ends": "analog"}


def test_a_mixed_job_reports_its_cores_and_what_dory_cannot_express(tmp_path: Path) -> None:
    result = quantise(
        module(), arrays(), tmp_path / "out", input_shape=(3, 8, 8), mapping=ANALOG, target={"batch_norm_bits": 16}
    )
    layers = {layer["name"]: layer for layer in result.report["layers"]}
    assert [layers[name]["core"] for name in ("first", "inner", "head")] == ["analog", "analog", "digital"]
    assert layers["first"]["weight_range"] == [-1, 1]
    assert layers["first"]["adc_gain"] >= 1
    assert any("cannot express the converter" in note for note in result.report["notes"])
    assert "cannot express the converter" in (tmp_path / "out" / "README.md").read_text()
    assert (
        "dory/model.onnx (attributes stripped, converters of analog layers added)"
        in (result.report["verification"]["executions"])
    )
    dory = onnx.load(str(tmp_path / "out" / "dory" / "model.onnx"))
    bits = [a.i for n in dory.graph.node if n.op_type == "Conv" for a in n.attribute if a.name == "weight_bits"]
    assert bits == [2, 2, 8]  # the last is the ReLU after an addition


def test_weights_become_ternary_step_by_step(tmp_path: Path) -> None:
    steps = [{"range": {"bitwidth": bits, "signed": True}, "epochs": 1} for bits in (8, 4)]
    training = {"epochs": 1, "learning_rate": 0.01, "batch_size": 16}
    seen: list[tuple[str, int | None]] = []
    result = quantise(
        module(),
        arrays(),
        tmp_path / "out",
        input_shape=(3, 8, 8),
        mapping=ANALOG,
        recipe={"progressive": steps, "hardware_mapped": training},
        emit=lambda body: seen.append((body.stage, body.epoch)) if body.type == "metrics" and body.epoch else None,
    )
    assert seen == [("hardware_mapped", 1)] * 3
    notes = [e["note"] for e in result.report["edits"] if e["editor"] == "MapAnalog" and e["node"] == "inner"]
    ranges = [note.split("weights in ")[1].split("]")[0] + "]" for note in notes]
    assert ranges == ["[-128, 127]", "[-8, 7]", "[-1, 1]"]
    assert {layer["name"]: layer for layer in result.report["layers"]}["inner"]["weight_range"] == [-1, 1]


def test_the_noise_sweep_is_reported_and_leaves_the_network_silent(tmp_path: Path) -> None:
    options = {"input_shape": (3, 8, 8), "mapping": ANALOG}
    sweep = {"gaussian": [0, 4], "draws": 3}
    noisy = quantise(module(), arrays(), tmp_path / "a", recipe={"noise_sweep": sweep}, **options)
    plain = quantise(module(), arrays(), tmp_path / "b", **options)
    none, much = noisy.report["noise_sweep"]
    measured = next(a for a in noisy.report["accuracy"] if a["stage"] == "hardware_exact")
    assert (none["gaussian"], none["draws"], none["top1"]["std"]) == (0, 1, 0)
    assert none["top1"]["mean"] == measured["top1"]
    assert (much["draws"], much["loss"]["std"] > 0) == (3, True)
    assert much["loss"]["mean"] != measured["loss"]
    files = [r.folder / "htvm" / "model.onnx" for r in (noisy, plain)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "| 4 |" in (tmp_path / "a" / "README.md").read_text()


def test_training_with_noise_differs_and_is_seeded(tmp_path: Path) -> None:
    training = {"epochs": 1, "learning_rate": 0.01, "batch_size": 16}
    recipes = [{"hardware_mapped": training, "noise": {"gaussian": sigma, "column_gain": sigma}} for sigma in (0, 1, 1)]
    results = [
        quantise(module(), arrays(), tmp_path / str(i), input_shape=(3, 8, 8), mapping=ANALOG, recipe=recipe)
        for i, recipe in enumerate(recipes)
    ]
    bytes_ = [(r.folder / "htvm" / "model.onnx").read_bytes() for r in results]
    assert bytes_[0] != bytes_[1] == bytes_[2]


def test_zero_epochs_everywhere_is_legal_on_both_cores(tmp_path: Path) -> None:
    for mapping in ({}, ANALOG):
        out = tmp_path / str(len(mapping))
        result = quantise(module(), {"x_train": arrays()["x_train"]}, out, input_shape=(3, 8, 8), mapping=mapping)
        assert result.report["accuracy"] == []


def test_an_impossible_mapping_names_the_layer(tmp_path: Path) -> None:
    with pytest.raises(DianaqError, match=r"'head'.*convolutions only") as caught:
        quantise(module(), arrays(), tmp_path / "out", input_shape=(3, 8, 8), mapping={"layers": {"head": "analog"}})
    assert caught.value.param == "mapping.layers.head"


class Flattened(nn.Module):
    """Two layers that each flatten the input themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(192, 8), nn.Linear(192, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.left(x.flatten(1)) + self.right(x.flatten(1)))
        return result


def test_two_flattens_of_one_tensor_get_through_the_checks_of_both_files(tmp_path: Path) -> None:
    result = quantise(Flattened(), arrays(), tmp_path / "out", input_shape=(3, 8, 8), recipe={"preset": "ptq"})
    assert [node.op_type for node in onnx.load(tmp_path / "out/dory/model.onnx").graph.node].count("Flatten") == 1
    assert result.report["verification"]


@pytest.mark.parametrize("zoo", [True, False])
def test_a_rule_that_names_no_layer_is_refused_before_anything_is_trained(tmp_path: Path, zoo: bool) -> None:
    made = ZooModel(architecture="resnet8", input_shape=(3, 8, 8), classes=10) if zoo else module()
    rule = {"layers": "haed", "weights": {"range": {"bitwidth": 4, "signed": True}}}
    recipe = {"float": {"epochs": 1}, "quantisers": {"rules": [rule]}}
    seen: list[Any] = []
    with pytest.raises(InvalidSpec, match=r"rules\.0 is for 'haed', which is no layer .* did you mean '"):
        quantise(made, arrays(), tmp_path / "out", input_shape=(3, 8, 8), recipe=recipe, emit=seen.append)
    assert {getattr(event, "stage", None) for event in seen} <= {"import", None}


def test_binary_weights_are_signs_to_the_end(tmp_path: Path) -> None:
    binary = {"weights": {"range": "binary", "function": "binary"}}
    network = module()
    with torch.no_grad():
        network.inner.weight[0] = 0.0  # no sign of its own
    result = quantise(network, arrays(), tmp_path / "out", input_shape=(3, 8, 8), recipe={"quantisers": binary})
    for name in ("first", "inner", "head"):
        layer = result.integer.get_submodule(name)
        assert set(layer.weight.flatten().tolist()) == {-1, 1}


class Signed(nn.Module):
    """The second layer reads what the first gives, signs included."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).flatten(1))


def test_progressive_steps_keep_the_inputs_of_the_analog_core_in_seven_bits(tmp_path: Path) -> None:
    steps = [{"range": {"bitwidth": 4, "signed": True}, "epochs": 0}] * 2
    torch.manual_seed(0)
    result = quantise(
        Signed(), arrays(), tmp_path / "out", input_shape=(3, 8, 8), mapping=ANALOG, recipe={"progressive": steps}
    )
    layers = {layer["name"]: layer for layer in result.report["layers"]}
    assert layers["second"]["core"] == "analog"
    assert layers["input"]["range"] == layers["first"]["range"] == [-63, 63]


def test_progressive_steps_need_labels_and_an_analog_layer(tmp_path: Path) -> None:
    recipe = {"progressive": [{"range": {"bitwidth": 4, "signed": True}, "epochs": 1}]}
    unlabelled = {"x_train": arrays()["x_train"]}
    with pytest.raises(InvalidSpec, match="epochs is 1 with progressive steps, but the dataset has no labels"):
        quantise(module(), unlabelled, tmp_path / "a", input_shape=(3, 8, 8), mapping=ANALOG, recipe=recipe)
    with pytest.raises(InvalidSpec, match="no layer runs on the analog core"):
        quantise(module(), arrays(), tmp_path / "b", input_shape=(3, 8, 8), recipe=recipe)


def test_a_sweep_that_cannot_be_is_noted(tmp_path: Path) -> None:
    result = quantise(module(), arrays(), tmp_path / "out", input_shape=(3, 8, 8), recipe={"noise_sweep": {}})
    assert "no noise sweep: no layer runs on the analog core" in result.report["notes"]


def test_the_ends_are_layers_of_the_users(tmp_path: Path) -> None:
    """The pool becomes a layer after the classifier, which is the last one all the same."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    result = quantise(network, arrays(), tmp_path / "out", input_shape=(3, 8, 8), mapping={"default": "analog"})
    cores = [layer["core"] for layer in result.report["layers"] if layer["operation"].endswith("Conv2d")]
    assert cores == ["digital", "analog", "digital", "digital"]
