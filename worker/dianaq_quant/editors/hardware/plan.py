"""The choice of all scales of an exact network: powers of two, and every shift within 0..31.

Only ratios of scales meet the hardware: a layer's shift is `n = log2(s_out / (s_in * s_w))`. Activation scales are
`base * 2^e`, where the base is 1 except where a real value must be hit exactly (the input's own grid, the ceiling of
a ReLU6); a weight scale is `s_out * 2^-n / s_in`, so that n is an integer whatever the bases are. An addition has no
weight scale; in the canonical form no special base meets one. An analog layer's integers `k` and `l` absorb any ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import fx

from dianaq.errors import QuantisationError
from dianaq.schemas.quantisers import MSE
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors.hardware.analog_shift import choose_analog_shift
from dianaq_quant.graph.scales import scale_readers, source_quantiser
from dianaq_quant.graph.surgery import calls, input_node, layer_of, module_of
from dianaq_quant.modules.exact import analog_affine
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, FakeLinear, FakeLinearOp
from dianaq_quant.modules.quantiser import FakeQuantiser, Scale
from dianaq_quant.modules.structure import Add
from dianaq_quant.quantisers import Seen, choose_scale
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, FLOAT32_EXACT_LIMIT, INT8, MAX_SHIFT


@dataclass
class ScalePlan:
    """Real value of one integer step of each activation, the shift of each layer and addition, and the converter's
    gain of each analog layer.

    `fixed` are the scales that a ceiling (ReLU6) prescribes.
    """

    activations: dict[Scale, float] = field(default_factory=dict)
    fixed: set[Scale] = field(default_factory=set)
    shifts: dict[fx.Node, int] = field(default_factory=dict)
    gains: dict[fx.Node, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Link:
    """What connects two scales by a shift: a layer or an addition."""

    node: fx.Node
    source: Scale
    sink: Scale
    layer: FakeLinearOp | None


def plan_scales(
    network: fx.GraphModule, *, input_steps: Mapping[QRange, float] | None = None, batch_norm_bits: int = 8
) -> ScalePlan:
    """Choose all scales of a folded, calibrated network (its quantisers have observed the calibration data).

    A scale follows from the observed values by its quantiser's strategy, rounded to a power of two. One that was
    learned, or that an analog layer was trained with, is kept: only rounded to the better power of two beside it.

    Args:
        input_steps: the input's scale for each range, if its grid is known (images); otherwise it is chosen like
            the others.
        batch_norm_bits: magnitude of an analog layer's `k` and `l`.

    Raises:
        QuantisationError: a layer whose accumulator cannot be kept within 32 bits; names it.
    """
    plan = ScalePlan()
    members: dict[Scale, list[FakeQuantiser]] = {}
    for _, module in calls(network, FakeQuantiser):
        assert isinstance(module, FakeQuantiser)
        members.setdefault(module.scale, []).append(module)
    entrance = module_of(network, next(iter(input_node(network).users)))
    assert isinstance(entrance, FakeQuantiser)
    kept = scale_readers(network, FakeAnalogConv2d).keys()
    for scale, quantisers in members.items():
        seen = [Seen.by(q.observer, q.qrange) for q in quantisers]
        strategy = quantisers[0].spec.strategy
        ceilings = {q.ceiling / q.qrange.hi for q in quantisers if q.ceiling is not None}
        if entrance in quantisers and input_steps and entrance.qrange in input_steps:
            plan.activations[scale] = input_steps[entrance.qrange]
        elif ceilings:
            plan.activations[scale] = max(ceilings)
            plan.fixed.add(scale)
        elif scale.learned or scale in kept:
            plan.activations[scale] = _rounded(scale.get(), seen)
        else:
            plan.activations[scale] = choose_scale(seen, strategy, base=None if entrance in quantisers else 1.0)
    _assign_shifts(plan, list(_links(network)))
    for node, layer in calls(network, FakeAnalogConv2d):
        assert isinstance(layer, FakeAnalogConv2d)
        _plan_analog(plan, network, node, layer, batch_norm_bits)
    return plan


def _rounded(scale: float, seen: list[Seen]) -> float:
    """The power of two beside a scale that represents what was seen with less error."""
    below = math.exp2(math.floor(math.log2(scale) + 1e-6))
    candidates = [below] if math.isclose(below, scale, rel_tol=1e-6) else [below, 2 * below]
    errors = [sum(float(s.error(torch.tensor([c], dtype=torch.float64))) for s in seen) for c in candidates]
    return candidates[errors.index(min(errors))]


def _plan_analog(
    plan: ScalePlan, network: fx.GraphModule, node: fx.Node, layer: FakeAnalogConv2d, batch_norm_bits: int
) -> None:
    """The converter's gain under the planned input scale, at the same real step, and the shift of `k` and `l`."""
    before, planned = layer.input_scale.get(), plan.activations[source_quantiser(network, node).scale]
    gain = float(layer.adc.gain) * math.exp2(round(math.log2(before / planned)))
    if gain < 1:
        plan.notes.append(f"{layer_of(node)}: its converter resolves more than the input's steps; gain {gain:g} is 1")
        gain = 1.0
    plan.gains[node] = gain
    quantiser = module_of(network, next(iter(node.users)))
    assert isinstance(quantiser, FakeQuantiser)
    step, offset = analog_affine(layer, planned * gain)
    plan.shifts[node] = choose_analog_shift(
        step, offset, plan.activations[quantiser.scale], quantiser.qrange, batch_norm_bits, layer.tiles.count
    )


def _links(network: fx.GraphModule) -> list[_Link]:
    found = []
    for node, module in calls(network, FakeConv2d, FakeLinear, Add):
        quantiser = module_of(network, next(iter(node.users)))
        assert isinstance(quantiser, FakeQuantiser)
        layer = module if isinstance(module, FakeConv2d | FakeLinear) else None
        found.append(_Link(node, source_quantiser(network, node).scale, quantiser.scale, layer))
    return found


def _assign_shifts(plan: ScalePlan, links: list[_Link]) -> None:
    """Choose weight scales and raise output scales until every shift is at least 0.

    Raising a scale can only lower the shifts of the layers that read it, so that sweeps in execution order settle
    everything but a loop (tensors of one scale, some made from others by layers) that amplifies: its layers get
    smaller weight scales, which clips weights, and a note. So does a layer whose output's scale is fixed.
    """
    weight_scale = {link.node: _weight_scale(plan, link) for link in links if link.layer is not None}

    def shift(link: _Link) -> int:
        """`n = log2(s_out / (s_in * s_w))`, an integer by the choice of the weight scale."""
        ratio = plan.activations[link.sink] / plan.activations[link.source]
        return round(math.log2(ratio / weight_scale.get(link.node, 1.0)))

    def clip(link: _Link, places: int, why: str) -> None:
        weight_scale[link.node] *= 2.0**-places
        plan.notes.append(f"{layer_of(link.node)}: weights clipped, {why}")

    initial = dict(plan.activations)
    if not _settle(plan, links, shift):
        plan.activations.update(initial)
        for link in links:
            # Weight scales of at most 1 cannot amplify, whatever the loop.
            places = math.ceil(math.log2(weight_scale.get(link.node, 1.0)))
            if places > 0 and _reaches(links, link.sink, link.source):
                clip(link, places, "its output shares a scale with what it is made from")
        settled = _settle(plan, links, shift)
        assert settled, "a loop whose layers do not amplify settles"
    for link in links:
        places = shift(link)
        if places < 0:
            clip(link, -places, "its output's scale cannot grow")
            places = 0
        plan.shifts[link.node] = _within_accumulator(plan, link, min(places, MAX_SHIFT))


def _settle(plan: ScalePlan, links: list[_Link], shift: Callable[[_Link], int]) -> bool:
    """Raise output scales until no shift is negative; whether that came to an end (Bellman and Ford's criterion)."""
    for _ in range(len(links) + 1):
        settled = True
        for link in links:
            places = shift(link)
            if places < 0 and link.sink is not link.source and link.sink not in plan.fixed:
                plan.activations[link.sink] *= 2.0**-places
                settled = False
        if settled:
            return True
    return False


def _reaches(links: list[_Link], start: Scale, end: Scale) -> bool:
    """Whether what has one scale is made, by any number of layers and additions, into what has the other."""
    reached, frontier = {start}, [start]
    while frontier:
        scale = frontier.pop()
        sinks = {link.sink for link in links if link.source is scale} - reached
        reached |= sinks
        frontier += sinks
    return end in reached


def _weight_scale(plan: ScalePlan, link: _Link) -> float:
    """The weight scale `s_out / s_in * 2^-n` that suits the weight best, n still unbounded."""
    assert link.layer is not None
    base = plan.activations[link.sink] / plan.activations[link.source]
    quantiser = link.layer.quantiser
    # A constant interval is of the weights that the recipe knows, not of those that hold a folded BatchNorm.
    strategy = MSE if quantiser.spec.strategy.strategy == "const" else quantiser.spec.strategy
    return choose_scale([Seen.of(link.layer.weight, quantiser.qrange)], strategy, base=base)


def _within_accumulator(plan: ScalePlan, link: _Link, shift: int) -> int:
    """The largest shift up to the given one that keeps the accumulator within 32 bits, and the bias within the
    integers that float32 holds exactly (half of them, which leaves as much for the sum)."""
    if link.layer is None:
        return shift
    while True:
        step = plan.activations[link.sink] * 2.0**-shift
        sums, bias = _magnitudes(link.layer, step, plan.activations[link.source])
        bias += 2.0 ** (shift - 1)  # the rounding constant
        if sums + bias < ACCUMULATOR_LIMIT and (bias < FLOAT32_EXACT_LIMIT / 2 or shift == 0):
            return shift
        if shift == 0:
            raise QuantisationError(
                f"{layer_of(link.node)}: its accumulator exceeds 32 bits at every weight scale",
                param=layer_of(link.node),
            )
        shift -= 1


def _magnitudes(layer: FakeLinearOp, step: float, in_scale: float) -> tuple[float, float]:
    """The largest magnitudes of the weighted sum and of the bias, in accumulator steps, for any int8 input."""
    weight = layer.weight.detach().abs().double().flatten(1) * (in_scale / step)
    bias = weight.sum(1) / 2  # the bias takes up half an input step per weight where the input is floored
    if layer.bias is not None:
        bias = bias + layer.bias.detach().abs().double() / step
    sums = weight.clamp(max=-INT8.lo).sum(1) * -INT8.lo
    return float(sums.max()) * (1 + 2**-8), float(bias.max())  # rounding the weights may add a little
