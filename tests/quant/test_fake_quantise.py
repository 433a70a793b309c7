"""From the canonical to the fake-quantised network: equalisation, where quantisers stand, which scales are shared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import fx, nn

from dianaq.errors import QuantisationError
from dianaq.schemas.quantisers import InitStrategy, Quantisers, QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors import fake_quantise
from dianaq_quant.editors.fake_quantise.equalise import Equalise
from dianaq_quant.editors.fake_quantise.harmonise_adds import HarmoniseAdds
from dianaq_quant.editors.hardware.fold_batch_norm import FoldBatchNorm
from dianaq_quant.editors.hardware.map_scale import MapScale
from dianaq_quant.graph import run_editors
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear, set_mode
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Conv2d
from dianaq_quant.training.calibrate import calibrate, observe
from dianaq_quant.training.data import Split

from .builder import ModelBuilder, Tensor
from .stages import UNCHANGED, canonical
from .support import edited, kinds, modules, outputs

MAP = (4, 6, 5)
INT8, INT4 = QRange(bitwidth=8, signed=True), QRange(bitwidth=4, signed=True)

Recipe = Callable[[ModelBuilder], Tensor]


def both(weights: QRange, activations: QRange, init: str = "mse") -> Quantisers:
    start = InitStrategy(strategy=init)
    return Quantisers(
        weights=QuantiserSpec(range=weights, init=start), activations=QuantiserSpec(range=activations, init=start)
    )


def converted(recipe: Recipe, qrange: QRange = INT8, shape: tuple[int, ...] = MAP, init: str = "mse") -> fx.GraphModule:
    b = ModelBuilder(shape, seed=4)
    network = canonical(b.build(recipe(b)))
    run_editors(network, fake_quantise.editors(both(qrange, qrange, init), equalise=False))
    return network


def quantiser_ranges(network: fx.GraphModule) -> list[tuple[int, int]]:
    return [(q.qrange.lo, q.qrange.hi) for q in modules(network, FakeQuantiser)]


SIGNED, RECTIFIED = (-128, 127), (0, 255)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (lambda b: b.conv(b.input, 2), ["Q-", "FakeConv2d", "Q-"]),
        (lambda b: b.relu(b.conv(b.input, 2)), ["Q-", "FakeConv2d", "Q+"]),
        (lambda b: b.batch_norm(b.conv(b.input, 2)), ["Q-", "FakeConv2d", "BatchNorm2d", "Q-"]),
        (lambda b: b.relu6(b.batch_norm(b.conv(b.input, 2))), ["Q-", "FakeConv2d", "BatchNorm2d", "Q+"]),
        (lambda b: b.gemm(b.flatten(b.input), 2), ["Q-", "Flatten", "FakeLinear", "Q-"]),
        (
            lambda b: b.pool("MaxPool", b.relu(b.conv(b.input, 2)), (2, 2)),
            ["Q-", "FakeConv2d", "Q+", "MaxPool2d"],
        ),
        (
            lambda b: b.flatten(b.global_pool(b.relu(b.conv(b.input, 2)))),
            ["Q-", "FakeConv2d", "Q+", "GlobalAvgPool2d", "Q+", "Flatten"],
        ),
        (
            lambda b: b.relu(b.add(b.conv(b.input, 2), b.conv(b.input, 2))),
            ["Q-", "FakeConv2d", "Q-", "FakeConv2d", "Q-", "Add", "Q+"],
        ),
        (lambda b: b.add(x := b.conv(b.input, 2), x), ["Q-", "FakeConv2d", "Q-", "Add", "Q-"]),
    ],
)
def test_every_stored_tensor_is_quantised_once(recipe: Recipe, expected: list[str]) -> None:
    network = converted(recipe)
    ranges = iter(quantiser_ranges(network))
    found = [{SIGNED: "Q-", RECTIFIED: "Q+"}[next(ranges)] if k == "FakeQuantiser" else k for k in kinds(network)]
    assert found == expected


def test_ranges_of_the_recipe_are_used_and_relu_keeps_their_number_of_levels() -> None:
    network = converted(lambda b: b.relu(b.conv(b.input, 2)), INT4)
    assert quantiser_ranges(network) == [(-8, 7), (0, 15)]
    assert modules(network, FakeConv2d)[0].quantiser.qrange == INT4


def test_relu6_keeps_its_ceiling() -> None:
    network = converted(lambda b: b.flatten(b.global_pool(b.relu6(b.conv(b.input, 2)))))
    assert [q.ceiling for q in modules(network, FakeQuantiser)] == [None, 6.0, 6.0]


def test_a_mean_has_the_scale_of_its_input() -> None:
    network = converted(lambda b: b.flatten(b.global_pool(b.relu(b.conv(b.input, 2)))))
    entrance, activation, mean = modules(network, FakeQuantiser)
    assert mean.scale is activation.scale
    assert mean is not activation
    assert entrance.scale is not activation.scale


def groups(network: fx.GraphModule) -> list[list[int]]:
    """Which quantisers, by their place, share a scale with another."""
    places: dict[int, list[int]] = {}
    for place, quantiser in enumerate(modules(network, FakeQuantiser)):
        places.setdefault(id(quantiser.scale), []).append(place)
    return [g for g in places.values() if len(g) > 1]


def test_additions_share_the_scale_of_their_inputs() -> None:
    network = converted(lambda b: b.relu(b.add(b.conv(b.input, 2), b.conv(b.input, 2))))
    assert groups(network) == [[1, 2]]  # of input, first, second, sum


def test_scales_are_shared_through_pools() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.pool("MaxPool", b.relu(b.conv(b.input, 2)), (2, 2))
        return b.add(b.conv(x, 2, (1, 1)), x)

    network = converted(recipe)
    assert groups(network) == [[1, 2]]  # of input, activation (read through the pool), convolution, sum


def test_chains_of_additions_join_their_groups() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x, y, z = (b.conv(b.input, 2) for _ in range(3))
        return b.add(b.add(x, y), z)

    assert groups(converted(recipe)) == [[1, 2], [3, 4]]


def test_operands_of_two_additions_tie_both_groups() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x, y, z = (b.conv(b.input, 2) for _ in range(3))
        return b.add(b.add(x, y), b.add(y, z))

    network = converted(recipe)
    assert groups(network) == [[1, 2, 3], [4, 5]]


def test_a_group_that_joins_another_brings_all_its_members() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x, y, z = (b.conv(b.input, 2) for _ in range(3))
        return b.add(b.add(x, y), b.add(z, y))

    assert groups(converted(recipe)) == [[1, 2, 3], [4, 5]]


def test_what_was_never_quantised_is_refused_by_name() -> None:
    network, _ = edited((b := ModelBuilder(MAP)).build(b.add(b.input, b.input, name="sum")))
    with pytest.raises(QuantisationError, match="what sum reads was never quantised") as caught:
        HarmoniseAdds()(network)
    assert caught.value.param == "sum"


def spread_channels(b: ModelBuilder, x: Tensor, *, group: int = 1, channels: int = 4) -> Tensor:
    """A convolution whose channels have ranges of three orders of magnitude."""
    weight = b.random.normal(size=(channels, x.shape[0] // group, 1, 1))
    weight *= np.geomspace(1e-2, 10, channels).reshape(-1, 1, 1, 1)
    return b.conv(x, channels, (1, 1), weight=weight, group=group)


EQUALISED: dict[str, Recipe] = {
    "plain": lambda b: b.conv(b.relu(spread_channels(b, b.input)), 3),
    "depthwise": lambda b: b.conv(b.relu(spread_channels(b, b.input)), 4, group=4),
    "grouped": lambda b: b.conv(b.relu(spread_channels(b, b.input)), 6, group=2),
    "batch norm": lambda b: b.conv(b.relu(b.batch_norm(spread_channels(b, b.input))), 3),
    "pool": lambda b: b.conv(b.pool("MaxPool", b.relu(spread_channels(b, b.input)), (2, 2)), 3),
    "mean": lambda b: b.gemm(b.flatten(b.global_pool(b.relu(spread_channels(b, b.input)))), 3),
    "flattened map": lambda b: b.gemm(b.flatten(b.relu(spread_channels(b, b.input))), 3),
    "chain": lambda b: b.conv(b.relu(spread_channels(b, b.relu(spread_channels(b, b.input)))), 3),
}


@pytest.mark.parametrize("recipe", EQUALISED.values(), ids=EQUALISED)
def test_equalisation_keeps_the_function(recipe: Recipe) -> None:
    b = ModelBuilder(MAP, seed=6)
    model = b.build(recipe(b))
    x = np.random.default_rng(0).normal(0, 2, (6, *MAP)).astype(np.float32)
    before, _ = edited(model)
    network, edits = edited(model, Equalise())
    expected = outputs(before, x)
    np.testing.assert_allclose(outputs(network, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert [e.applied for e in edits if not e.note.startswith("its output")] == [True]


def test_equalised_layers_have_equal_ranges_in_every_channel() -> None:
    b = ModelBuilder(MAP, seed=6)
    network, edits = edited(b.build(EQUALISED["plain"](b)), Equalise())
    first, second = modules(network, Conv2d)
    out_range = first.weight.abs().flatten(1).amax(1)
    in_range = second.weight.abs().transpose(0, 1).flatten(1).amax(1)
    torch.testing.assert_close(out_range, in_range)
    assert [e.note for e in edits if e.applied] == ["channel ranges of 1 layers equalised with the next layer's"]


def test_dead_and_extreme_channels_survive_equalisation() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        weight = np.full((4, 4, 1, 1), 1.0)
        weight[0], weight[1], weight[2] = 0.0, 1e-30, 1e30
        y = b.relu(b.conv(b.input, 4, (1, 1), weight=weight, bias=False))
        heads = np.full((2, 4, 1, 1), 1.0)
        heads[:, 1], heads[:, 2], heads[:, 3] = 1e30, 1e-30, 0.0
        return b.conv(y, 2, (1, 1), weight=heads)

    b = ModelBuilder(MAP)
    model = b.build(recipe(b))
    x = np.random.default_rng(0).normal(0, 2, (6, *MAP)).astype(np.float32)
    before, _ = edited(model)
    network, _ = edited(model, Equalise())
    for layer in modules(network, Conv2d):
        assert torch.isfinite(layer.weight).all()
        assert float(layer.weight.detach().abs().max()) < 10
    np.testing.assert_allclose(outputs(network, x), outputs(before, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (lambda b: b.conv(b.relu6(b.conv(b.input, 4)), 2), "saturates at a fixed value"),
        (lambda b: b.add(b.conv(b.input, 4), b.conv(b.input, 4)), "added to another tensor"),
        (lambda b: b.conv(b.input, 4), "is read at several places or is the network's output"),
        (lambda b: b.add(b.conv(x := b.conv(b.input, 4), 4, (1, 1)), b.conv(x, 4, (1, 1))), "read at several places"),
    ],
)
def test_why_a_layer_is_not_equalised(recipe: Recipe, reason: str) -> None:
    b = ModelBuilder(MAP)
    _, edits = edited(b.build(recipe(b)), Equalise())
    assert not any(e.applied for e in edits)
    assert any(reason in e.note for e in edits)
    assert edits[0].editor == "Equalise"


def test_batch_norm_is_folded_into_the_layer_before_it() -> None:
    b = ModelBuilder(MAP, seed=5)
    network = canonical(b.build(b.gemm(b.flatten(b.batch_norm(b.conv(b.input, 3), dead=[1])), 2)))
    run_editors(network, fake_quantise.editors(both(INT8, INT8), equalise=False))
    set_mode(network, "bypass")
    x = np.random.default_rng(0).normal(0, 2, (6, *MAP)).astype(np.float32)
    before = outputs(network, x)
    edits = FoldBatchNorm()(network)
    assert [(e.editor, e.applied) for e in edits] == [("FoldBatchNorm", True)]
    assert "BatchNorm2d" not in kinds(network)
    np.testing.assert_allclose(outputs(network, x), before, rtol=1e-4, atol=1e-5)
    (conv,) = modules(network, FakeConv2d)
    assert conv.weight[1].abs().max() == 0
    assert isinstance(conv.bias, nn.Parameter)


def scaled(network: fx.GraphModule) -> list[float]:
    """Scales set to 1, 2, 3... in the order of the quantisers, once each."""
    scales = list(dict.fromkeys(q.scale for q in modules(network, FakeQuantiser)))
    for value, scale in enumerate(scales, 1):
        scale.set(value)
    return [q.scale.get() for q in modules(network, FakeQuantiser)]


def test_mapping_keeps_the_largest_value_of_each_range() -> None:
    network = converted(lambda b: b.relu(b.conv(b.conv(b.input, 2), 2)), INT4)
    before = scaled(network)
    tops = [q.qrange.hi * s for q, s in zip(modules(network, FakeQuantiser), before, strict=True)]
    edits = run_editors(network, [MapScale()])
    assert quantiser_ranges(network) == [(-128, 127), (-128, 127), (0, 127)]
    assert [127 * q.scale.get() for q in modules(network, FakeQuantiser)] == pytest.approx(tops)
    assert [e.note.split(", scale")[0] for e in edits] == ["[-8, 7] to [-128, 127]"] * 2 + ["[0, 15] to [0, 127]"]


def test_mapping_leaves_the_chips_own_range_and_says_so() -> None:
    network = converted(lambda b: b.relu(b.conv(b.input, 2)))
    edits = run_editors(network, [MapScale()])
    assert [(e.applied, e.note.split(", scale")[0]) for e in edits] == [
        (False, "its range is the chip's already"),
        (True, "[0, 255] to [0, 127]"),
    ]


def test_mapping_a_shared_scale_once_by_its_largest_factor() -> None:
    network = converted(lambda b: b.add(b.conv(b.input, 2), b.relu(b.conv(b.input, 2))))
    before = scaled(network)
    assert before[1] == before[2]
    run_editors(network, [MapScale()])
    after = [q.scale.get() for q in modules(network, FakeQuantiser)]
    assert after == pytest.approx([before[0], before[1] * 255 / 127, before[1] * 255 / 127, before[3]])


def test_calibration_sets_scales_from_what_is_seen() -> None:
    network = converted(lambda b: b.relu6(b.conv(b.relu(b.conv(b.input, 4)), 2)), init="minmax")
    x = torch.randn(300, *MAP, generator=torch.Generator().manual_seed(0))
    calibrate(network, Split(x, None), UNCHANGED)
    entrance, middle, last = modules(network, FakeQuantiser)
    assert all(quantiser.observer.count == 0 for quantiser in (entrance, middle, last))  # nothing is kept of it
    observe(network, Split(x, None), UNCHANGED)
    assert entrance.scale.get() == pytest.approx(float(torch.maximum(x.max() / 127, -x.min() / 128)), rel=1e-5)
    assert middle.scale.get() == pytest.approx(float(middle.observer.hi) / 255, rel=1e-5)
    assert middle.observer.lo == 0
    assert last.scale.get() == pytest.approx(6 / 255)
    for layer in modules(network, FakeConv2d):
        up, down = float(layer.weight.detach().max()) / 127, -float(layer.weight.detach().min()) / 128
        assert layer.quantiser.scale.get() == pytest.approx(max(up, down), rel=1e-5)


def test_fake_layers_take_over_parameters_and_quantise_them() -> None:
    b = ModelBuilder((4,), seed=1)
    network = canonical(b.build(b.gemm(b.input, 3)))
    (before,) = modules(network, nn.Linear)
    weight = before.weight
    run_editors(network, fake_quantise.editors(both(INT4, INT8), equalise=False))
    (layer,) = modules(network, FakeLinear)
    assert layer.weight is weight
    layer.quantiser.scale.set(0.25)
    for quantiser in modules(network, FakeQuantiser):
        quantiser.mode = "bypass"
    rounded = (weight / 0.25 + 0.5).floor().clamp(-8, 7) * 0.25
    x = torch.randn(5, 4)
    torch.testing.assert_close(network(x), x @ rounded.T + layer.bias)
    set_mode(network, "bypass")
    torch.testing.assert_close(network(x), x @ weight.T + layer.bias)
