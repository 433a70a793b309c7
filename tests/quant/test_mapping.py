"""Fake quantisers by rule, and how ranges, scales and layers are brought to the two cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from dianaq.errors import InvalidSpec
from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.quantisers import Quantisers
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors import fake_quantise, hardware
from dianaq_quant.editors.hardware.map_analog import MapAnalog
from dianaq_quant.editors.hardware.map_scale import MapScale
from dianaq_quant.editors.hardware.map_weights import MapWeights
from dianaq_quant.editors.hardware.plan import plan_scales
from dianaq_quant.graph import Edit, run_editors
from dianaq_quant.graph.scales import scale_readers
from dianaq_quant.graph.surgery import calls, input_node, layer_of
from dianaq_quant.modules.exact import ExactAnalogConv2d, ExactConv2d, ExactLinear
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, FakeLinear
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.quantisers import Seen, choose_scale
from dianaq_quant.targets.diana import ANALOG_INPUT, INT8, RECTIFIED, TERNARY
from dianaq_quant.training.calibrate import calibrate, observe
from dianaq_quant.training.calibrate_analog import calibrate_analog
from dianaq_quant.training.data import Split

from .builder import ModelBuilder, Tensor
from .stages import UNCHANGED, canonical, exact_network
from .support import modules

MAP = (4, 6, 6)
SAME = (1, 1, 1, 1)
ANALOG = CoreMapping(default="analog")

Recipe = Callable[[ModelBuilder], Tensor]


def block(b: ModelBuilder) -> Tensor:
    """A digital convolution, a residual block, a depthwise convolution and a head."""
    x = b.relu(b.conv(b.input, 4, pads=SAME, name="stem"), name="stem_relu")
    y = b.batch_norm(b.conv(x, 4, pads=SAME, bias=False, name="inner"), name="norm")
    x = b.relu(b.add(y, x, name="sum"), name="sum_relu")
    x = b.relu(b.conv(x, 4, pads=SAME, group=4, name="depth"))
    return b.gemm(b.flatten(b.global_pool(x)), 3, name="head")


DATA = torch.randn(50, *MAP, generator=torch.Generator().manual_seed(0))


def fake(recipe: Recipe = block, cores: CoreMapping = ANALOG, **quantisers: Any) -> fx.GraphModule:
    b = ModelBuilder(MAP, seed=4)
    network = canonical(b.build(recipe(b)), cores)
    run_editors(network, fake_quantise.editors(Quantisers.model_validate(quantisers), equalise=False))
    return network


def calibrated(recipe: Recipe = block, cores: CoreMapping = ANALOG, **quantisers: Any) -> fx.GraphModule:
    network = fake(recipe, cores, **quantisers)
    calibrate(network, Split(DATA, None), UNCHANGED)
    observe(network, Split(DATA, None), UNCHANGED)
    return network


def weight_ranges(network: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    found = calls(network, FakeConv2d, FakeLinear, FakeAnalogConv2d)
    return {layer_of(node): (m.quantiser.qrange.lo, m.quantiser.qrange.hi) for node, m in found}  # type: ignore[union-attr]


def activations(network: fx.GraphModule) -> dict[str, FakeQuantiser]:
    """Activation quantisers by the layer that they follow; `x` is the input's."""
    found = [(node, m) for node, m in calls(network, FakeQuantiser) if isinstance(m, FakeQuantiser)]
    return {"x" if node.args[0] is input_node(network) else layer_of(node): m for node, m in found}


def ranges(network: fx.GraphModule) -> dict[str, tuple[int, int]]:
    return {name: (q.qrange.lo, q.qrange.hi) for name, q in activations(network).items()}


INT4: dict[str, Any] = {"range": {"bitwidth": 4, "signed": True}}
FOUR, EIGHT = (-8, 7), (-128, 127)


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ({}, {"stem", "inner", "depth", "head"}),
        ({"type": "conv"}, {"stem", "inner", "depth"}),
        ({"type": "depthwise"}, {"depth"}),
        ({"type": "linear"}, {"head"}),
        ({"type": "output"}, {"head"}),
        ({"core": "analog"}, {"inner"}),
        ({"core": "digital"}, {"stem", "depth", "head"}),
        ({"core": "digital", "type": "conv"}, {"stem", "depth"}),
        ({"layers": "head"}, {"head"}),
        ({"layers": "*e*"}, {"stem", "inner", "depth", "head"}),
        ({"layers": "?tem"}, {"stem"}),
        ({"layers": "stem", "core": "analog"}, set()),
    ],
)
def test_rules_choose_weights_by_pattern_type_and_core(rule: dict[str, Any], changed: set[str]) -> None:
    found = weight_ranges(fake(rules=[{**rule, "weights": INT4}]))
    assert found == {name: FOUR if name in changed else EIGHT for name in ("stem", "inner", "depth", "head")}


def test_later_rules_win_and_a_rule_without_weights_says_nothing_of_them() -> None:
    ternary = {"range": "ternary", "function": "ternary"}
    rules = [{"type": "conv", "weights": INT4}, {"layers": "inner", "weights": ternary}, {"activations": INT4}]
    network = fake(rules=rules)
    assert weight_ranges(network) == {"stem": FOUR, "inner": (-1, 1), "depth": FOUR, "head": EIGHT}
    assert {m.spec.function for m in activations(network).values()} == {"ste"}


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ({}, {"x", "stem_relu", "norm", "sum_relu", "relu7", "globalaveragepool8", "head"}),
        ({"type": "input"}, {"x"}),
        ({"type": "output"}, {"head"}),
        ({"type": "activation"}, {"stem_relu", "sum_relu", "relu7", "globalaveragepool8"}),
        ({"type": "conv"}, {"norm", "stem_relu", "relu7", "globalaveragepool8"}),  # after BatchNorm and activation
        ({"type": "linear"}, {"head"}),
        ({"core": "analog"}, {"norm"}),
        ({"layers": "inner"}, {"norm"}),
        ({"layers": "sum_relu"}, {"sum_relu"}),
    ],
)
def test_rules_choose_activations(rule: dict[str, Any], changed: set[str]) -> None:
    found = activations(fake(rules=[{**rule, "activations": INT4}]))
    assert {name for name, q in found.items() if q.qrange.levels == 16} == changed
    assert len(found) == 7


def test_a_rule_of_type_add_is_for_sums() -> None:
    network = fake(
        lambda b: b.add(b.conv(b.input, 2), b.conv(b.input, 2)), rules=[{"type": "add", "activations": INT4}]
    )
    assert [q.qrange.levels for q in modules(network, FakeQuantiser)] == [256, 256, 256, 16]


def test_a_rule_for_a_name_that_is_not_there_is_refused_with_the_names() -> None:
    with pytest.raises(
        InvalidSpec, match=r"recipe\.quantisers\.rules\.1 is for 'stern', which matches no layer"
    ) as caught:
        fake(rules=[{"layers": "stem", "weights": INT4}, {"layers": "stern", "weights": INT4}])
    assert caught.value.param == "recipe.quantisers.rules.1.layers"
    for name in ("stem", "inner", "sum_relu", "head"):
        assert name in caught.value.detail.split("there are")[1]


def test_a_granularity_that_a_weight_lacks_is_refused_by_name() -> None:
    with pytest.raises(
        InvalidSpec, match=r"granularity \(2,\) does not fit the weight of head, whose shape is \(3, 4\)"
    ):
        fake(weights={"granularity": [2]})
    network = fake(weights={"granularity": [2]}, rules=[{"type": "linear", "weights": {}}])
    assert [m.quantiser.spec.dimensions for m in modules(network, FakeConv2d)] == [(2,)] * 3


def test_a_range_without_a_sign_is_taken_with_one_where_there_is_no_relu() -> None:
    found = ranges(fake(activations={"range": {"bitwidth": 4, "signed": False}}))
    assert (found["x"], found["norm"], found["stem_relu"]) == ((-8, 7), (-8, 7), (0, 15))


def test_a_free_offset_is_learned_when_the_network_is_calibrated() -> None:
    network = fake(activations={"range": {"bitwidth": 4}, "init": "minmax"})
    assert activations(network)["x"].qrange.is_free
    calibrate(network, Split(DATA + 1, None), UNCHANGED)
    found = activations(network)
    assert not any(q.qrange.is_free for q in found.values())
    observe(network, Split(DATA + 1, None), UNCHANGED)
    low, high = float(found["x"].observer.lo), float(found["x"].observer.hi)
    assert found["x"].qrange.lo == pytest.approx(15 * low / (high - low), abs=1)
    assert found["stem_relu"].qrange.lo == 0


def mapped(network: fx.GraphModule, **kwargs: Any) -> list[Edit]:
    return run_editors(network, hardware.mapping(TERNARY, **kwargs))


def test_ranges_become_those_of_the_cores() -> None:
    network = calibrated(cores=CoreMapping(default="analog", ends="analog"))
    mapped(network)
    found = ranges(network)
    seven, rectified = (-63, 63), (0, 127)
    assert found == {
        "x": seven, "stem_relu": rectified, "norm": EIGHT, "sum_relu": rectified, "relu7": rectified,
        "globalaveragepool8": rectified, "head": EIGHT,
    }  # fmt: skip


def test_signed_values_between_analog_layers_have_seven_bits() -> None:
    network = calibrated(
        lambda b: b.conv(b.conv(b.input, 4, name="first"), 4, name="last"), CoreMapping(default="analog", ends="analog")
    )
    mapped(network)
    assert ranges(network) == {"x": (-63, 63), "first": (-63, 63), "last": EIGHT}


def test_what_analog_layers_read_has_the_best_power_of_two() -> None:
    network = calibrated()
    before = {name: q.scale.get() for name, q in activations(network).items()}
    mapped(network)
    found = activations(network)
    # "stem_relu" is read by "inner", and is added to what that gives: one scale.
    assert found["stem_relu"].scale is found["norm"].scale
    seen = [Seen.by(found[n].observer, found[n].qrange) for n in ("stem_relu", "norm")]
    scale = found["stem_relu"].scale.get()
    assert math.log2(scale).is_integer()
    errors = {2.0**e: sum(float(s.error(torch.tensor([2.0**e]))) for s in seen) for e in range(-12, 4)}
    assert scale == min(errors, key=lambda s: errors[s])
    for name in ("x", "head"):  # untouched: digital, and int8 before
        assert found[name].scale.get() == before[name]
    assert found["sum_relu"].scale.get() == pytest.approx(before["sum_relu"] * 255 / 127)


def test_an_input_whose_grid_is_known_keeps_it() -> None:
    network = calibrated(cores=CoreMapping(ends="analog"))
    mapped(network, input_steps={ANALOG_INPUT: 0.0625 * 3, INT8: 0.1})
    assert activations(network)["x"].scale.get() == pytest.approx(0.1875)
    network = calibrated()
    before = activations(network)["x"].scale.get()
    mapped(network, input_steps={ANALOG_INPUT: 0.0625 * 3, INT8: 0.1})
    assert activations(network)["x"].scale.get() == before  # int8 is planned later


def test_an_input_range_written_in_other_words_keeps_its_grid_too() -> None:
    network = calibrated(activations={"range": {"n_levels": 256, "offset": -128}})
    mapped(network)
    run_editors(network, hardware.FOLDING)
    observe(network, Split(DATA, None), UNCHANGED)
    plan = plan_scales(network, input_steps={INT8: 0.0123})
    assert plan.activations[activations(network)["x"].scale] == 0.0123


def test_a_saturating_activation_keeps_its_scale_for_the_analog_core() -> None:
    network = calibrated(lambda b: b.conv(b.relu6(b.conv(b.input, 4)), 2), CoreMapping(layers={"conv2": "analog"}))
    mapped(network)
    (clipped,) = [q for q in activations(network).values() if q.ceiling is not None]
    assert clipped.scale.get() == pytest.approx(6 / 127)


def test_a_learned_bound_is_frozen_where_the_analog_core_reads_it() -> None:
    network = calibrated(activations={"function": "pact"})
    assert all(q.scale.learned for q in activations(network).values())
    mapped(network)
    found = activations(network)
    frozen = {name for name, q in found.items() if not q.scale.learned}
    assert frozen == {"stem_relu", "norm"}
    assert math.log2(found["stem_relu"].scale.get()).is_integer()


def test_a_learned_power_of_two_goes_on_learning_where_the_analog_core_reads_it() -> None:
    network = calibrated(activations={"function": "tqt"})
    mapped(network)
    for q in activations(network).values():
        assert q.scale.learned
        assert math.log2(q.scale.get()).is_integer()


@pytest.mark.parametrize("size", [1.0, 1.15, 1.3, 1.5, 1.75])
def test_power_of_two_thresholds_of_activations_start_at_the_best_powers_of_two(size: float) -> None:
    network = fake(activations={"function": "tqt"}, cores=CoreMapping())
    calibrate(network, Split(DATA * size, None), UNCHANGED)
    observe(network, Split(DATA * size, None), UNCHANGED)
    for name in ("x", "sum_relu", "head"):
        quantiser = activations(network)[name]
        seen = Seen.by(quantiser.observer, quantiser.qrange)
        assert quantiser.scale.get() == choose_scale([seen], quantiser.spec.strategy, base=1.0)


def test_the_half_step_of_a_floored_input_goes_behind_the_converter() -> None:
    """An input integer k stands for k + 1/2: the sums are half the sum of the weights larger, in accumulator steps."""
    network = folded(calibrated(lambda b: b.relu(b.conv(b.input, 4)), CoreMapping(default="analog", ends="analog")))
    fuse, boundary = hardware.exact_editors(plan_scales(network))
    run_editors(network, [fuse])
    (layer,) = modules(network, ExactAnalogConv2d)
    before = layer.bias.detach().clone()
    run_editors(network, [boundary])
    half = layer.integer_weight().detach().sum((1, 2, 3)) / 2
    one_step = layer.requantise.in_scale * layer.quantiser.scale().detach().flatten()
    torch.testing.assert_close(layer.bias.detach() - before, half * one_step)
    assert float(half.abs().max()) > 0


def test_a_power_of_two_threshold_survives_the_step_from_eight_to_seven_bits() -> None:
    """255 levels to 127 doubles the scale, and no more: another factor of two would waste a bit."""
    network = calibrated(activations={"function": "tqt"}, cores=CoreMapping())
    before = activations(network)["sum_relu"].scale.get()
    mapped(network)
    assert activations(network)["sum_relu"].scale.get() == 2 * before


@pytest.mark.parametrize(("values", "lo"), [(-DATA.abs() - 1, -15), (DATA - 2.5, -11)])
def test_ranges_that_reach_further_down_than_up_stay_represented(values: torch.Tensor, lo: int) -> None:
    """A learned offset may leave nothing above zero: the scale follows from what lies below."""
    network = fake(activations={"range": {"bitwidth": 4}, "init": "minmax"}, cores=CoreMapping())
    calibrate(network, Split(values, None), UNCHANGED)
    observe(network, Split(values, None), UNCHANGED)
    entrance = activations(network)["x"]
    assert entrance.qrange.lo <= lo
    reach = entrance.qrange.lo * entrance.scale.get()
    mapped(network)
    assert entrance.qrange == INT8
    assert -128 * entrance.scale.get() == pytest.approx(reach)


def test_digital_weights_become_int8_with_one_scale() -> None:
    network = calibrated(weights={"granularity": "per-outchannel_weights"}, cores=CoreMapping())
    edits = MapWeights()(network)
    assert [e.applied for e in edits] == [True] * 4
    for layer in [*modules(network, FakeConv2d), *modules(network, FakeLinear)]:
        assert layer.quantiser.spec.granularity == "per-array"
        assert layer.quantiser.scale().shape == ()
        alone = choose_scale([Seen.of(layer.weight, INT8)], layer.quantiser.spec.strategy)
        assert layer.quantiser.scale.get() == pytest.approx(alone)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"bitwidth": 4, "signed": True}, (-8, 7)),
        ({"limpbitwidth": 8, "signed": True}, (-127, 127)),
        ({"n_levels": 200, "offset": -100}, (-100, 99)),
        ({"n_levels": 200, "offset": -150}, (-128, 127)),
        ({"n_levels": 200, "offset": -50}, (-128, 127)),
    ],
)
def test_ranges_within_int8_are_kept(written: dict[str, Any], kept: tuple[int, int]) -> None:
    network = calibrated(weights={"range": written}, cores=CoreMapping())
    edits = MapWeights()(network)
    assert set(weight_ranges(network).values()) == {kept}
    if kept != EIGHT:
        assert [(e.applied, e.note) for e in edits] == [(False, "its range is the chip's already, with one scale")] * 4


def test_analog_layers_get_ternary_weights_per_channel_and_share_the_inputs_scale() -> None:
    network = calibrated()
    weight = next(m.weight for n, m in calls(network, FakeConv2d) if layer_of(n) == "inner")
    edits = mapped(network)
    assert [e.note for e in edits if e.editor == "MapAnalog"] == [
        "analog: weights in [-1, 1], one scale per output channel"
    ]
    ((node, layer),) = calls(network, FakeAnalogConv2d)
    assert isinstance(layer, FakeAnalogConv2d)
    assert layer_of(node) == "inner"
    assert layer.weight is weight
    assert layer.input_scale is activations(network)["stem_relu"].scale
    assert (layer.quantiser.spec.function, layer.quantiser.scale.learned) == ("ternary", True)
    assert layer.quantiser.scale().shape == (4, 1, 1, 1)
    assert float(layer.adc.gain) == 1
    assert list(scale_readers(network, FakeAnalogConv2d)) == [layer.input_scale]


def test_analog_weights_may_be_wider_on_the_way_and_keep_their_converter() -> None:
    network = calibrated()
    run_editors(network, hardware.mapping(QRange(bitwidth=4, signed=True)))
    (layer,) = modules(network, FakeAnalogConv2d)
    assert (layer.quantiser.qrange.lo, layer.quantiser.qrange.hi, layer.quantiser.spec.function) == (-8, 7, "ste")
    calibrate_analog(network, Split(DATA, None), UNCHANGED)
    converter = layer.adc
    run_editors(network, [MapAnalog(TERNARY)])
    assert modules(network, FakeAnalogConv2d) == [layer]
    assert layer.adc is converter
    assert set(layer.quantiser.integers(layer.weight).detach().unique().tolist()) <= {-1, 0, 1}


def test_mapping_twice_changes_nothing_more() -> None:
    network = calibrated()
    mapped(network)
    calibrate_analog(network, Split(DATA, None), UNCHANGED)
    before = {name: (q.qrange, q.scale.get()) for name, q in activations(network).items()}
    edits = run_editors(network, [MapScale(), MapWeights()])
    assert {name: (q.qrange, q.scale.get()) for name, q in activations(network).items()} == before
    assert not any(e.applied for e in edits)


def folded(network: fx.GraphModule) -> fx.GraphModule:
    mapped(network)
    calibrate_analog(network, Split(DATA, None), UNCHANGED)
    run_editors(network, hardware.FOLDING)
    observe(network, Split(DATA, None), UNCHANGED)
    return network


@pytest.mark.parametrize("function", ["pact", "tqt"])
def test_the_plan_keeps_scales_that_were_learned(function: str) -> None:
    network = folded(calibrated(activations={"function": function}, cores=CoreMapping()))
    found = activations(network)
    for q in found.values():  # far from what observation alone would choose
        q.scale.rescale(8.0 / q.scale.get() if function == "tqt" else 10.0 / q.scale.get())
    plan = plan_scales(network)
    # The head's scale may have to grow; what is learned otherwise stays, or goes to a power of two beside it.
    for name in ("stem_relu", "sum_relu", "relu7"):
        assert plan.activations[found[name].scale] in ({8.0} if function == "tqt" else {8.0, 16.0})
    plain = folded(calibrated(cores=CoreMapping()))
    assert plan_scales(plain).activations[activations(plain)["sum_relu"].scale] < 1


def test_the_plan_keeps_what_the_converters_were_trained_with() -> None:
    network = folded(calibrated())
    scale = activations(network)["stem_relu"].scale
    scale.rescale(4.0)
    (layer,) = modules(network, FakeAnalogConv2d)
    layer.adc.gain.fill_(16.0)
    plan = plan_scales(network)
    assert plan.activations[scale] == scale.get()
    ((node, _),) = calls(network, FakeAnalogConv2d)
    assert plan.gains == {node: 16.0}
    assert 0 <= plan.shifts[node] <= 31


def test_a_converter_finer_than_its_inputs_steps_is_noted() -> None:
    network = folded(calibrated())
    (layer,) = modules(network, FakeAnalogConv2d)
    layer.adc.gain.fill_(0.25)
    plan = plan_scales(network)
    assert list(plan.gains.values()) == [1.0]
    assert "inner: its converter resolves more than the input's steps; gain 0.25 is 1" in plan.notes


@pytest.mark.parametrize("granularity", ["per-array", "per-outchannel_weights"])
def test_binary_weights_stay_signs_on_the_digital_core(granularity: str) -> None:
    b = ModelBuilder(MAP, seed=4)
    weights = {"range": "binary", "function": "binary", "granularity": granularity}
    network, _, _ = exact_network(b.build(block(b)), quantisers=Quantisers.model_validate({"weights": weights}))
    layers = [*modules(network, ExactConv2d), *modules(network, ExactLinear)]
    assert len(layers) == 4
    for layer in layers:
        assert set(layer.integer_weight().unique().tolist()) == {-1.0, 1.0}


def test_rectified_is_what_both_cores_read() -> None:
    assert (RECTIFIED.lo, RECTIFIED.hi) == (0, 127)
