"""Where the compilers put a layer: each rule by one layer that keeps all and one that breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dianaq_quant.targets.diana import placement
from dianaq_quant.targets.diana.placement import (
    LayerGeometry,
    htvm_faults,
    htvm_network_faults,
    htvm_offloads,
    soc_faults,
)
from dianaq_quant.targets.diana.rules import Rule

CONV = LayerGeometry(
    kind="conv",
    core="digital",
    c_in=16,
    c_out=32,
    in_size=(32, 32),
    out_size=(32, 32),
    kernel=(3, 3),
    pads=(1, 1, 1, 1),
    clip=(0, 127),
    shift=7,
)
DEPTHWISE = replace(CONV, kind="depthwise", c_in=32, groups=32)
ANALOG = replace(CONV, core="analog", c_in=64, c_out=64, in_size=(16, 16), out_size=(16, 16), bias=False)
FC = LayerGeometry(kind="fc", core="digital", c_in=64, c_out=16, clip=(-128, 127), shift=5)
ADD = LayerGeometry(
    "add", "digital", 32, 32, in_size=(32, 32), out_size=(32, 32), clip=(-128, 127), shift=0, bias=False
)
POOL = LayerGeometry("pool", "digital", 32, 32, in_size=(8, 8), kernel=(8, 8), bias=False)


@pytest.mark.parametrize("layer", [CONV, DEPTHWISE, ANALOG, FC, ADD, replace(CONV, strides=(2, 2), out_size=(16, 16))])
def test_a_layer_that_both_compilers_like(layer: LayerGeometry) -> None:
    assert htvm_faults(layer) == []
    assert htvm_offloads(layer)
    assert soc_faults(layer) == []


HTVM: list[tuple[LayerGeometry, dict[str, Any], str]] = [
    (POOL, {}, "htvm.pool"),
    (CONV, {"kernel": (10, 4), "pads": (5, 1, 5, 1)}, "htvm.kernel"),
    (CONV, {"kernel": (9, 9), "pads": (4, 4, 4, 4)}, "htvm.kernel"),
    (CONV, {"strides": (1, 2)}, "htvm.stride"),
    (CONV, {"strides": (4, 4)}, "htvm.stride"),
    (CONV, {"dilation": (2, 2), "pads": (2, 2, 2, 2)}, "htvm.dilation"),
    (CONV, {"pads": (0, 0, 0, 0)}, "htvm.padding"),
    (CONV, {"pads": (0, 0, 2, 2)}, "htvm.padding"),
    (CONV, {"groups": 2}, "htvm.groups"),
    (ANALOG, {"groups": 64}, "htvm.groups"),
    (CONV, {"bias": False}, "htvm.bias"),
    (FC, {"bias": False}, "htvm.bias"),
    (ANALOG, {"bias": True}, "htvm.bias"),
    (CONV, {"c_in": 1, "in_size": (5, 5)}, "htvm.elements"),
    (FC, {"c_out": 10}, "htvm.elements"),
    (FC, {"c_in": 63}, "htvm.elements"),
    (ANALOG, {"c_in": 130}, "htvm.rows"),
    (ANALOG, {"row_tiles": 2}, "htvm.rows"),
    (CONV, {"shift": 32}, "htvm.shift"),
    (ADD, {"shift": -1}, "htvm.shift"),
    (DEPTHWISE, {"c_in": 6, "c_out": 6, "groups": 6}, "htvm.depthwise"),
    (DEPTHWISE, {"c_in": 64}, "htvm.depthwise"),
    (ADD, {"clip": (0, 127)}, "htvm.relu-after-add"),
    (CONV, {"c_out": 24}, "htvm.channels"),
    (CONV, {"in_size": (1, 1), "out_size": (1, 1)}, "htvm.no-code"),
    (CONV, {"in_size": (2, 2), "out_size": (2, 2), "c_in": 256, "c_out": 256}, "htvm.no-code"),
    (CONV, {"clip": (0, 126)}, "htvm.clip"),
    (FC, {"clip": (-127, 127)}, "htvm.clip"),
    (CONV, {"pads": (1, 0, 1, 0)}, "htvm.same-on-one-axis"),
    (CONV, {"kernel": (3, 1), "pads": (0, 0, 0, 0)}, "htvm.same-on-one-axis"),
    (ANALOG, {"constants": (0, 2**15)}, "htvm.int16"),
    (ANALOG, {"constants": (-(2**15) - 1, 5)}, "htvm.int16"),
]
SOC: list[tuple[LayerGeometry, dict[str, Any], str]] = [
    (CONV, {"c_in": 3}, "soc.channels"),
    (FC, {"c_out": 12}, "soc.channels"),
    (ANALOG, {"c_out": 32}, "soc.channels"),
    (ADD, {"in_size": (8, 8), "out_size": (8, 8)}, "soc.width"),
    (CONV, {"strides": (2, 2), "in_size": (16, 16), "out_size": (8, 8)}, "soc.width"),
    (CONV, {"kernel": (3, 5), "pads": (1, 2, 1, 2)}, "soc.kernel"),
    (CONV, {"pads": (0, 0, 2, 2)}, "soc.padding"),
    (CONV, {"pads": (1, 0, 1, 0)}, "soc.padding"),
    (CONV, {"strides": (3, 3)}, "soc.stride"),
    (CONV, {"dilation": (2, 2), "pads": (2, 2, 2, 2)}, "soc.dilation"),
    (ADD, {"c_in": 48, "c_out": 48}, "soc.activations"),
    (FC, {"c_in": 1024, "c_out": 64}, "soc.weights"),
    (ADD, {"clip": (0, 127)}, "soc.relu-after-add"),
    (ANALOG, {"c_in": 192}, "soc.rows"),
    (ANALOG, {"c_out": 576}, "soc.columns"),
    (CONV, {"groups": 4}, "soc.groups"),
    (ANALOG, {"groups": 64}, "soc.groups"),
    (ANALOG, {"bias": True}, "soc.analog-bias"),
    (POOL, {}, "soc.pool"),
]


@pytest.mark.parametrize(("layer", "changes", "rule"), HTVM)
def test_htvm(layer: LayerGeometry, changes: dict[str, Any], rule: str) -> None:
    faults = htvm_faults(replace(layer, **changes))
    assert rule in [fault.rule.id for fault in faults]
    assert htvm_offloads(replace(layer, **changes)) == all(f.rule.severity == "wrong" for f in faults)


@pytest.mark.parametrize(("layer", "changes", "rule"), SOC)
def test_soc(layer: LayerGeometry, changes: dict[str, Any], rule: str) -> None:
    assert rule in [fault.rule.id for fault in soc_faults(replace(layer, **changes))]


def test_a_layer_left_to_the_cpu_has_no_hazards() -> None:
    """24 channels are a hazard of the accelerator only."""
    layer = replace(CONV, c_out=24, kernel=(4, 4), pads=(1, 1, 1, 1))
    assert {fault.rule.severity for fault in htvm_faults(layer)} == {"cpu"}
    assert not htvm_offloads(layer)


def test_depthwise_channels_matter_only_where_dory_sees_the_layer() -> None:
    odd = replace(DEPTHWISE, c_in=6, c_out=6, groups=6)
    assert [f.rule.id for f in htvm_faults(replace(odd, in_size=(3, 3), out_size=(3, 3)))] == ["htvm.elements"] * 2


def test_a_map_smaller_than_its_kernel_is_no_hazard_without_tiling() -> None:
    assert htvm_faults(replace(CONV, in_size=(1, 1), out_size=(1, 1), c_out=16)) == []
    assert htvm_faults(replace(CONV, in_size=(2, 2), out_size=(2, 2))) == []


def test_bytes() -> None:
    assert CONV.weight_bytes == 16 * 32 * 9 + 4 * 32
    assert DEPTHWISE.weight_bytes == 32 * 9 + 4 * 32
    assert ANALOG.weight_bytes == 64 * 64 * 9 / 4
    assert FC.weight_bytes == 64 * 16 + 4 * 16
    assert ADD.weight_bytes == POOL.weight_bytes == 0
    assert (ADD.input_bytes, ADD.output_bytes) == (2 * 32 * 1024, 32 * 1024)


def test_all_weights_share_l2_with_the_largest_activations() -> None:
    large = replace(FC, c_in=1024, c_out=240)
    layers = [large, large]
    assert sum(layer.weight_bytes for layer in layers) + 1024 + 240 < 512_000
    assert htvm_network_faults(layers) == []
    assert [f.rule.id for f in htvm_network_faults([*layers, CONV])] == ["htvm.l2"]
    assert htvm_network_faults([]) == []


def test_every_rule_is_broken_by_a_test() -> None:
    declared = {rule.id for rule in vars(placement).values() if isinstance(rule, Rule)}
    assert declared == {rule for _, _, rule in [*HTVM, *SOC]} | {"htvm.l2"}
