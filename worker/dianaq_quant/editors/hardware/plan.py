"""The choice of all scales of an exact network: powers of two, and every shift within 0..31.

Only ratios of scales meet the hardware: a layer's shift is `n = log2(s_out / (s_in * s_w))`. Activation scales are
`base * 2^e`, where the base is 1 except where a real value must be hit exactly (the input's own grid, the ceiling of
a ReLU6); a weight scale is `s_out * 2^-n / s_in`, so that n is an integer whatever the bases are. An addition has no
weight scale; in the canonical form no special base meets one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import fx

from dianaq.errors import QuantisationError
from dianaq.ranges import InitStrategy
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import calls, input_node, layer_of, module_of
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear, FakeLinearOp, FakeQuantiser, Scale
from dianaq_quant.modules.structure import Add
from dianaq_quant.quantisers import choose_scale
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, FLOAT32_EXACT_LIMIT, INT8, MAX_SHIFT


@dataclass
class ScalePlan:
    """Real value of one integer step of each activation, and the shift of each layer and addition.

    `fixed` are the scales that a ceiling (ReLU6) prescribes.
    """

    activations: dict[Scale, float] = field(default_factory=dict)
    fixed: set[Scale] = field(default_factory=set)
    shifts: dict[fx.Node, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Link:
    """What connects two scales by a shift: a layer or an addition."""

    node: fx.Node
    source: Scale
    sink: Scale
    layer: FakeLinearOp | None


def plan_scales(
    network: fx.GraphModule,
    *,
    weights: InitStrategy,
    activations: InitStrategy,
    input_step: float | None,
) -> ScalePlan:
    """Choose all scales of a folded, calibrated network (its quantisers have observed the calibration data).

    Args:
        weights, activations: how a scale follows from values; the scale is rounded to its power of two.
        input_step: the input's scale, if its grid is known (images); otherwise it is chosen like the others.

    Raises:
        QuantisationError: a layer whose accumulator cannot be kept within 32 bits; names it.
    """
    plan = ScalePlan()
    members: dict[Scale, list[FakeQuantiser]] = {}
    for _, module in calls(network, FakeQuantiser):
        assert isinstance(module, FakeQuantiser)
        members.setdefault(module.scale, []).append(module)
    entrance = source_quantiser(network, next(iter(_after_input(network).users)))
    for scale, quantisers in members.items():
        if entrance in quantisers and input_step is not None:
            plan.activations[scale] = input_step
            continue
        seen = [(q.observer.sample, q.qrange) for q in quantisers]
        ceilings = {q.ceiling / q.qrange.hi for q in quantisers if q.ceiling is not None}
        if entrance in quantisers:
            plan.activations[scale] = choose_scale(seen, activations)
        elif ceilings:
            plan.activations[scale] = max(ceilings)
            plan.fixed.add(scale)
        else:
            plan.activations[scale] = choose_scale(seen, activations, base=1.0)
    links = list(_links(network))
    _assign_shifts(plan, links, weights)
    return plan


def _after_input(network: fx.GraphModule) -> fx.Node:
    """The node of the input's quantiser."""
    return next(iter(input_node(network).users))


def _links(network: fx.GraphModule) -> list[_Link]:
    found = []
    for node, module in calls(network, FakeConv2d, FakeLinear, Add):
        quantiser = module_of(network, next(iter(node.users)))
        assert isinstance(quantiser, FakeQuantiser)
        layer = module if isinstance(module, FakeConv2d | FakeLinear) else None
        found.append(_Link(node, source_quantiser(network, node).scale, quantiser.scale, layer))
    return found


def _assign_shifts(plan: ScalePlan, links: list[_Link], strategy: InitStrategy) -> None:
    """Choose weight scales and raise output scales until every shift is at least 0.

    Raising a scale can only lower the shifts of the layers that read it, so that sweeps in execution order settle
    everything but a loop (tensors of one scale, some made from others by layers) that amplifies: its layers get
    smaller weight scales, which clips weights, and a note. So does a layer whose output's scale is fixed.
    """
    weight_scale = {link.node: _weight_scale(plan, link, strategy) for link in links if link.layer is not None}

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


def _weight_scale(plan: ScalePlan, link: _Link, strategy: InitStrategy) -> float:
    """The weight scale `s_out / s_in * 2^-n` that suits the weight best, n still unbounded."""
    assert link.layer is not None
    base = plan.activations[link.sink] / plan.activations[link.source]
    return choose_scale([(link.layer.weight.detach().flatten(), link.layer.qrange)], strategy, base=base)


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
