"""Scales and shifts of exact networks: what the plan chooses, enforces and refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import fx

from dianaq.errors import QuantisationError
from dianaq_quant.editors import hardware, integerise
from dianaq_quant.editors.hardware.plan import ScalePlan, plan_scales
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import calls, layer_of, module_of
from dianaq_quant.modules.exact import ExactAdd, ExactConv2d, ExactInput, ExactLinear, ExactOutput
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear
from dianaq_quant.modules.integer import IntegerConv2d, IntegerInput, IntegerOutput
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Add
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, FLOAT32_EXACT_LIMIT, INT8

from .builder import ModelBuilder, Tensor
from .networks import Case, cases
from .stages import folded_network, plan_of
from .support import kinds, modules, outputs

MAP = (4, 6, 5)

Recipe = Callable[[ModelBuilder], Tensor]


def planned(
    recipe: Recipe, shape: tuple[int, ...] = MAP, input_step: float | None = None
) -> tuple[fx.GraphModule, ScalePlan]:
    b = ModelBuilder(shape, seed=4)
    network, _, _ = folded_network(b.build(recipe(b)))
    return network, plan_scales(network, input_steps={INT8: input_step} if input_step else None)


def shifts(plan: ScalePlan) -> dict[str, int]:
    return {layer_of(node): n for node, n in plan.shifts.items()}


def check(network: fx.GraphModule, plan: ScalePlan) -> None:
    """What holds for every plan: shifts in 0..31, exact powers of two where the hardware meets a ratio."""
    for node, module in calls(network, FakeConv2d, FakeLinear, Add):
        shift = plan.shifts[node]
        assert 0 <= shift <= 31
        quantiser = module_of(network, next(iter(node.users)))
        assert isinstance(quantiser, FakeQuantiser)
        s_in, s_out = plan.activations[source_quantiser(network, node).scale], plan.activations[quantiser.scale]
        if isinstance(module, Add):
            assert s_out == s_in * 2.0**shift
            assert plan.activations[source_quantiser(network, node, 1).scale] == s_in
        else:
            bias = 0.0 if module.bias is None else float(module.bias.detach().abs().max())
            steps = bias / (s_out * 2.0**-shift) + 2.0 ** (shift - 1)
            assert steps < (FLOAT32_EXACT_LIMIT / 2 if shift else ACCUMULATOR_LIMIT)
    for scale, value in plan.activations.items():
        if scale is not entrance(network).scale and scale not in plan.fixed:
            assert float(np.log2(value)).is_integer()


def magnitude(quantiser: FakeQuantiser) -> float:
    return float(torch.maximum(quantiser.observer.lo.abs(), quantiser.observer.hi.abs()))


def entrance(network: fx.GraphModule) -> FakeQuantiser:
    return modules(network, FakeQuantiser)[0]  # type: ignore[no-any-return]


@settings(max_examples=30)
@given(cases())
def test_any_plan_can_be_computed_by_the_chip(case: Case) -> None:
    network, _, _ = folded_network(case.model)
    check(network, plan_of(network))


def test_a_layer_whose_weights_are_coarser_than_its_output_raises_the_output_scale() -> None:
    """Weights far beyond int8 of the output's scale: output steps are as large as the product of the others."""

    def recipe(b: ModelBuilder) -> Tensor:
        # 400 and -400 cancel in the data, not in the weights.
        same = b.gemm(b.input, 2, weight=np.ones((2, 2)), bias=False)
        return b.gemm(same, 2, weight=np.array([[4000.0, -4000], [0, 0.1]]), bias=False, name="gemm1")

    network, plan = planned(recipe, (2,))
    check(network, plan)
    seen = magnitude(modules(network, FakeQuantiser)[-1])
    assert shifts(plan)["gemm1"] == 0
    assert plan.activations[modules(network, FakeQuantiser)[-1].scale] > 4 * seen / 127
    assert plan.notes == []


def amplifying(b: ModelBuilder) -> Tensor:
    x = b.conv(b.input, 4)
    inner = b.relu(b.conv(x, 4, (1, 1), scale=1e3, name="up"))
    return b.flatten(b.add(x, b.conv(inner, 4, (1, 1), scale=1e3, name="further"), name="sum"))


def test_an_amplifying_loop_clips_weights_and_says_so() -> None:
    network, plan = planned(amplifying)
    check(network, plan)
    why = "weights clipped, its output shares a scale with what it is made from"
    assert set(plan.notes) <= {f"up: {why}", f"further: {why}"}
    assert plan.notes
    # The scales did not run away while they were looked for.
    largest = max(magnitude(q) for q in modules(network, FakeQuantiser))
    assert max(plan.activations.values()) < largest / 127 * 8


def test_a_residual_block_of_usual_weights_is_left_alone() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.conv(b.input, 4)
        for _ in range(3):
            x = b.add(x, b.conv(b.relu(b.conv(x, 4, (1, 1))), 4, (1, 1)))
        return b.flatten(x)

    network, plan = planned(recipe)
    check(network, plan)
    assert plan.notes == []


def test_relu6_scale_is_its_ceiling_and_is_never_raised() -> None:
    network, plan = planned(lambda b: b.flatten(b.relu6(b.conv(b.input, 4, scale=1e4, name="big"))))
    check(network, plan)
    last = modules(network, FakeQuantiser)[-1]
    assert plan.activations[last.scale] == 6 / 127
    assert plan.fixed == {last.scale}
    assert plan.notes == ["big: weights clipped, its output's scale cannot grow"]


def test_the_input_takes_the_step_that_is_known() -> None:
    for step in (None, 1 / 127.5):
        network, plan = planned(lambda b: b.conv(b.input, 2), input_step=step)
        check(network, plan)
        chosen = plan.activations[entrance(network).scale]
        assert chosen == step if step else chosen == pytest.approx(magnitude(entrance(network)) / 127, rel=0.9)


def test_shifts_are_at_most_31_however_small_the_weights_are() -> None:
    network, plan = planned(lambda b: b.conv(b.input, 2, scale=1e-12, bias_scale=1.0, name="tiny"))
    check(network, plan)
    assert shifts(plan)["tiny"] < 24  # the rounding constant alone would leave float32 beyond


def test_zero_weights_are_planned() -> None:
    network, plan = planned(lambda b: b.conv(b.relu(b.conv(b.input, 2, scale=0.0)), 2, scale=0.0))
    check(network, plan)
    assert all(v == 1.0 for s, v in plan.activations.items() if s is not entrance(network).scale)


def test_a_bias_beyond_32_bits_at_every_shift_is_refused_by_name() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        return b.flatten(b.relu6(b.conv(b.input, 4, bias_scale=1e9, name="/net/far")))

    with pytest.raises(QuantisationError, match="/net/far: its accumulator exceeds 32 bits at every weight") as caught:
        planned(recipe)
    assert caught.value.param == "/net/far"


def test_an_accumulator_that_training_took_beyond_32_bits_is_refused_by_name() -> None:
    network, plan = planned(lambda b: b.conv(b.input, 2, name="/net/far"))
    run_editors(network, hardware.exact_editors(plan))
    (layer,) = modules(network, ExactConv2d)
    with torch.no_grad():
        layer.bias.fill_(layer.requantise.accumulator_scale * 2**31)
    with pytest.raises(QuantisationError, match=r"/net/far: its accumulator can reach \d+, which exceeds 32") as caught:
        run_editors(network, integerise.EDITORS)
    assert caught.value.param == "/net/far"


def exact(recipe: Recipe, shape: tuple[int, ...] = MAP) -> tuple[fx.GraphModule, ScalePlan, fx.GraphModule]:
    network, plan = planned(recipe, shape)
    reference, _ = planned(recipe, shape)
    edits = run_editors(network, hardware.exact_editors(plan))
    assert {e.editor for e in edits} == {"FuseRequantisation", "IntegerBoundary"}
    return network.eval(), plan, reference


def test_layers_and_their_quantisers_become_one_operation() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.relu(b.conv(b.input, 4, pads=(1, 1, 1, 1)))
        y = b.relu(b.add(b.conv(x, 4, (1, 1)), x))
        return b.gemm(b.flatten(b.global_pool(b.pool("MaxPool", y, (2, 2)))), 3)

    network, _, _ = exact(recipe)
    assert kinds(network) == [
        "ExactInput",
        "ExactConv2d",
        "ExactConv2d",
        "ExactAdd",
        "MaxPool2d",
        "ExactGlobalAvgPool2d",
        "Flatten",
        "ExactLinear",
        "ExactOutput",
    ]
    ranges = [(m.requantise.qrange.lo, m.requantise.qrange.hi) for m in modules(network, ExactConv2d)]
    assert ranges == [(0, 127), (-128, 127)]
    assert modules(network, ExactAdd)[0].requantise.qrange.lo == 0


def test_half_an_input_step_goes_into_the_bias_of_every_layer_that_reads_it() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        flat = b.gemm(b.flatten(b.input), 3)
        return b.add(flat, b.gemm(b.flatten(b.conv(b.input, 2)), 3))

    network, _, reference = exact(recipe)
    scale = modules(network, ExactInput)[0].scale
    pairs = [
        (modules(network, ExactLinear)[0], modules(reference, FakeLinear)[0]),
        (modules(network, ExactConv2d)[0], modules(reference, FakeConv2d)[0]),
    ]
    for layer, before in pairs:
        expected = before.bias + scale / 2 * before.weight.flatten(1).sum(1)
        torch.testing.assert_close(layer.bias, expected)
    torch.testing.assert_close(modules(network, ExactLinear)[1].bias, modules(reference, FakeLinear)[1].bias)


def test_the_output_has_the_scale_of_what_it_passes_on() -> None:
    network, _, _ = exact(lambda b: b.flatten(b.pool("MaxPool", b.conv(b.input, 2), (2, 2))))
    assert modules(network, ExactOutput)[0].scale == modules(network, ExactConv2d)[0].requantise.out_scale


def test_the_exact_network_rounds_to_the_nearest_step() -> None:
    """No float network is needed to tell: the quantised weights on the middles of the input's bins."""
    network, _, reference = exact(lambda b: b.gemm(b.input, 5), (6,))
    (layer,) = modules(network, ExactLinear)
    requantise, step = layer.requantise, modules(network, ExactInput)[0].scale
    x = np.random.default_rng(0).normal(0, 1, (500, 6)).astype(np.float32)
    integers = np.clip(np.floor(x / np.float32(step)), -128, 127)
    weight = layer.integer_weight().detach().double().numpy() * requantise.weight_scale
    half = step / 2 * modules(reference, FakeLinear)[0].weight.detach().double().sum(1).numpy()
    bias = modules(reference, FakeLinear)[0].bias.detach().double().numpy()
    wanted = np.clip((integers * step @ weight.T + half + bias) / requantise.out_scale, -128, 127)
    error = outputs(network, x) / requantise.out_scale - wanted
    assert np.abs(error).max() < 0.5 + 2.0**-requantise.shift
    assert abs(error.mean()) < 0.02


def test_integerise_gives_the_integers_of_the_exact_network() -> None:
    network, _, _ = exact(lambda b: b.relu(b.conv(b.input, 2)))
    (layer,) = modules(network, ExactConv2d)
    weight, bias = layer.integer_weight().detach(), layer.integer_bias().detach()
    edits = run_editors(network, integerise.EDITORS)
    assert [e.node for e in edits if e.applied] == [n.name for n in network.graph.nodes if n.op == "call_module"]
    (integer,) = modules(network, IntegerConv2d)
    assert (integer.weight.dtype, integer.bias.dtype) == (torch.int8, torch.int32)
    assert torch.equal(integer.weight.float(), weight)
    assert torch.equal(integer.bias.float(), bias)
    assert (integer.shift.shift, integer.shift.qrange) == (layer.requantise.shift, layer.requantise.qrange)
    assert len(modules(network, IntegerInput)) == len(modules(network, IntegerOutput)) == 1
    assert list(network.parameters()) == []
