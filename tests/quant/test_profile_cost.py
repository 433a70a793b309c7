"""Cost and memory of integer networks, against figures computed by hand and the published ones."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors import integerise
from dianaq_quant.export.layers import IntegerNetwork, Layer, read_layers
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.modules.integer import IntegerConv2d, Shift
from dianaq_quant.modules.structure import Geometry
from dianaq_quant.profile.cost import layer_cost, layer_memory, totals
from dianaq_quant.profile.weights import MAX_BINS, histogram
from dianaq_quant.targets.diana import INT8
from dianaq_quant.targets.diana.cost import LayerShape

from .builder import ModelBuilder
from .stages import DIGITAL, exact_network
from .test_cost import mobilenet, residual_stages


def residual() -> onnx.ModelProto:
    b = ModelBuilder((3, 6, 6), seed=2)
    y = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False, name="first")))
    y = b.relu(b.add(b.batch_norm(b.conv(y, 8, pads=(1, 1, 1, 1), bias=False, name="second")), y, name="add"))
    return b.build(b.gemm(b.flatten(b.global_pool(y, name="pool"), name="flat"), 3, name="head"))


def integer(model: onnx.ModelProto, cores: CoreMapping = DIGITAL) -> IntegerNetwork:
    network, _, shape = exact_network(model, cores)
    run_editors(network, integerise.EDITORS)
    record_shapes(network, shape)
    return read_layers(network)


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    return integer(residual())


def by_original(network: IntegerNetwork, entries: dict[str, Any]) -> dict[str, Any]:
    return {layer.original: entries[layer.name] for layer in network.layers}


def test_a_residual_stays_in_memory_while_its_branch_is_computed(network: IntegerNetwork) -> None:
    live = {name: entry["live_bytes"] for name, entry in by_original(network, layer_memory(network)).items()}
    image, map_ = 3 * 36, 8 * 36
    assert live == {
        "first": image + map_,
        "second": map_ + map_,
        "add": 3 * map_,
        "pool": map_ + 8,
        "flat": 8,  # no copy
        "head": 8 + 3,
    }
    _, memory = totals(network)
    assert memory["peak_activation_bytes"] == 3 * map_
    assert memory["peak_layer"] == next(layer.name for layer in network.layers if layer.original == "add")


def test_bytes_of_digital_and_analog_constants(network: IntegerNetwork) -> None:
    found = by_original(network, layer_memory(network))
    assert {n: found[n]["weight_bytes"] for n in ("first", "second", "add", "pool", "head")} == {
        "first": 8 * 27 + 4 * 8,
        "second": 8 * 72 + 4 * 8,
        "add": 0,
        "pool": 0,
        "head": 3 * 8 + 4 * 3,
    }
    assert (found["add"]["input_bytes"], found["add"]["output_bytes"]) == (2 * 288, 288)
    mixed = integer(residual(), CoreMapping(layers={"second": "analog"}))
    assert by_original(mixed, layer_memory(mixed))["second"]["weight_bytes"] == 8 * 72 / 4 + 2 * 2 * 8
    _, memory = totals(mixed)
    assert memory["analog_weight_bytes"] == 176
    assert memory["weight_bytes"] == 248 + 176 + 36
    assert memory["total_bytes"] == memory["weight_bytes"] + memory["peak_activation_bytes"]


def test_only_linear_layers_have_a_cost_model(network: IntegerNetwork) -> None:
    cost, _ = totals(network)
    names = {layer.name: layer.original for layer in network.layers}
    assert [names[name] for name in cost["not_modelled"]] == ["add", "pool", "flat"]
    entries = by_original(network, {layer.name: layer_cost(layer) for layer in network.layers})
    assert entries["first"]["macs"] == 36 * 8 * 27
    assert entries["first"]["cycles"] == 3 * 6 * 9 + 36 * 11 / 8
    assert entries["head"] | {"latency_s": 0, "energy_j": 0} == {
        "macs": 24,
        "cycles": 8 + 11 / 8,
        "latency_s": 0,
        "energy_j": 0,
    }
    assert set(entries["add"].values()) == {0}
    assert cost["cycles"] == sum(entry["cycles"] for entry in entries.values())
    assert cost["energy_j"] == pytest.approx(24.96e-3 * cost["cycles"] / 260e6)


def test_a_depthwise_layer_has_one_input_per_output() -> None:
    b = ModelBuilder((4, 5, 5), seed=1)
    y = b.relu(b.conv(b.input, 4, pads=(1, 1, 1, 1), group=4, name="depthwise"))
    built = integer(b.build(b.gemm(b.flatten(y), 2)))
    assert layer_cost(built.layers[0])["macs"] == 25 * 4 * 9
    assert layer_cost(built.layers[0])["cycles"] == 1 * 4 * 1 * 5 * 9 + 25 * 8 / 8


def chain(shapes: list[LayerShape]) -> Any:
    """What the cost model looks at of digital layers one after the other."""
    layers, before = [], "input"
    for index, s in enumerate(shapes):
        weight = torch.zeros(s.c_out, s.c_in // s.groups, *s.kernel)
        geometry = Geometry((1, 1), (0, 0, 0, 0), (1, 1), s.groups)
        module = IntegerConv2d(weight, torch.zeros(s.c_out), Shift(0, INT8), geometry)
        name = f"layer{index}"
        layers.append(Layer(name, module, (before,), (s.c_out, *s.out_size), name, name))
        before = layers[-1].name
    return SimpleNamespace(input_shape=(shapes[0].c_in, 1, 1), layers=layers, sink=before)


@pytest.mark.parametrize(
    ("shapes", "milliseconds", "microjoules", "megamacs"),
    [
        (residual_stages(3), 0.991, 24.7, 40.8),
        (residual_stages(1), 0.314, 7.83, 12.5),
        (mobilenet(0.25, 96, 2), 0.802, 20.0, 7.5),
    ],
    ids=["resnet20", "resnet8", "mobilenet_v1"],
)
def test_totals_are_the_published_ones(
    shapes: list[LayerShape], milliseconds: float, microjoules: float, megamacs: float
) -> None:
    cost, _ = totals(chain(shapes))
    assert cost["latency_s"] * 1e3 == pytest.approx(milliseconds, rel=0.01)
    assert cost["energy_j"] * 1e6 == pytest.approx(microjoules, rel=0.01)
    assert cost["macs"] / 1e6 == pytest.approx(megamacs, rel=0.01)


def test_memories_that_are_too_small_are_named() -> None:
    wide, deep = LayerShape(64, 128, (3, 3), (32, 32)), LayerShape(128, 512, (3, 3), (1, 1))
    network = chain([wide, deep])
    memory = totals(network)[1]
    found = {(entry["layer"], entry["memory"]): entry["bytes"] for entry in memory["exceeded"]}
    assert found == {
        (None, "l2"): 128 * 64 * 9 + 512 * 128 * 9 + 4 * 640 + 128 * 1024 + 512,
        ("layer0", "digital_weights"): 128 * 64 * 9 + 512,
        ("layer0", "l1_soc"): 64 + 128 * 1024,
        ("layer1", "digital_weights"): 512 * 128 * 9 + 4 * 512,
        ("layer1", "l1_soc"): 128 * 1024 + 512,
    }
    assert all(entry["limit"] == memory["limits"][entry["memory"]] for entry in memory["exceeded"])


def test_histograms_count_every_weight() -> None:
    weight = torch.tensor([-128, -128, -125, -124, 0, 0, 0, 127], dtype=torch.int8)
    found = histogram(weight, INT8)
    assert (found["lo"], found["step"], len(found["counts"])) == (-128, 4, MAX_BINS)
    assert (found["counts"][0], found["counts"][1], found["counts"][32], found["counts"][63]) == (3, 1, 3, 1)
    assert sum(found["counts"]) == 8
    assert found["saturated"] == 3 / 8


def test_narrow_weights_have_a_bin_each() -> None:
    ternary = histogram(torch.tensor([-1, 0, 0, 1, 1, 1]), QRange.model_validate("ternary"))
    assert ternary == {"lo": -1, "step": 1, "counts": [1, 2, 3]}
    assert histogram(torch.tensor([3, 3]), QRange(bitwidth=4, signed=True))["counts"] == [2]
    four = histogram(torch.tensor([7, -8, 0, 1]), QRange(bitwidth=4, signed=True))
    assert (len(four["counts"]), four["saturated"]) == (16, 0.5)


@pytest.mark.parametrize("span", [1, 63, 64, 65, 128, 129, 256])
def test_bins_never_are_too_many(span: int) -> None:
    found = histogram(torch.arange(span) - 128)
    assert len(found["counts"]) == math.ceil(span / found["step"]) <= MAX_BINS
    assert sum(found["counts"]) == span
