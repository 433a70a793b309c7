"""The choice of all scales of an exact network: powers of two, and every shift within 0..31.

Only ratios of scales meet the hardware: a layer's shift is `n = log2(s_out / (s_in * s_w))`. Activation scales are
`base * 2^e`, where the base is 1 except where a real value must be hit exactly (the input's own grid, the ceiling of
a ReLU6); a weight scale is `s_out * 2^-n / s_in`, so that n is an integer whatever the bases are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from dianaq.errors import QuantisationError
from dianaq.ranges import InitStrategy
from torch import Tensor, fx

from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import calls, input_node, layer_of, module_of
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear, FakeLinearOp, FakeQuantiser, Scale
from dianaq_quant.modules.structure import Add
from dianaq_quant.quantisers import choose_scale
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, INT8, MAX_SHIFT


@dataclass
class ScalePlan:
    """Real value of one integer step of each activation, and the shift of each layer and addition."""

    activations: dict[Scale, float] = field(default_factory=dict)
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

    Raising a scale can only lower the shifts of the layers that read it, so that a sweep in execution order settles
    everything but loops (a group of added tensors that feeds itself through a layer); those get a smaller weight
    scale, which clips weights, and a note.
    """
    weight_scale = {link.node: _weight_scale(plan, link, strategy) for link in links if link.layer is not None}

    def shift(link: _Link) -> int:
        """`n = log2(s_out / (s_in * s_w))`, an integer by the choice of the weight scale."""
        ratio = plan.activations[link.sink] / plan.activations[link.source]
        if link.layer is None:
            return round(math.log2(ratio))
        return round(math.log2(ratio / weight_scale[link.node]))

    for _ in range(len(links) + 1):
        lagging = [link for link in links if shift(link) < 0]
        if not lagging:
            break
        for link in lagging:
            if link.sink is not link.source:
                plan.activations[link.sink] *= 2.0 ** max(0, -shift(link))
            elif link.layer is not None:
                weight_scale[link.node] *= 2.0 ** shift(link)
                plan.notes.append(f"{layer_of(link.node)}: weights clipped, its output shares its input's scale")
    for link in links:
        places = shift(link)
        if places < 0 and link.layer is not None:
            weight_scale[link.node] *= 2.0**places
            plan.notes.append(f"{layer_of(link.node)}: weights clipped, its output scale cannot grow")
            places = 0
        if places < 0:
            raise QuantisationError(
                f"the addition {layer_of(link.node)} would need a left shift of {-places} places; "
                "the chip shifts right only",
                param=layer_of(link.node),
            )
        plan.shifts[link.node] = _within_accumulator(plan, link, min(places, MAX_SHIFT))


def _weight_scale(plan: ScalePlan, link: _Link, strategy: InitStrategy) -> float:
    """The weight scale `s_out / s_in * 2^-n` that suits the weight best, n still unbounded."""
    assert link.layer is not None
    base = plan.activations[link.sink] / plan.activations[link.source]
    return choose_scale([(link.layer.weight.detach().flatten(), link.layer.qrange)], strategy, base=base)


def _within_accumulator(plan: ScalePlan, link: _Link, shift: int) -> int:
    """The largest shift up to the given one that keeps bias and accumulator within 32 bits."""
    if link.layer is None:
        return shift
    weight, bias = link.layer.weight.detach(), link.layer.bias
    while True:
        step = plan.activations[link.sink] * 2.0**-shift
        if _bound(weight, bias, step, plan.activations[link.source]) < ACCUMULATOR_LIMIT:
            return shift
        if shift == 0:
            raise QuantisationError(
                f"{layer_of(link.node)}: its accumulator exceeds 32 bits at every weight scale",
                param=layer_of(link.node),
            )
        shift -= 1


def _bound(weight: Tensor, bias: Tensor | None, step: float, in_scale: float) -> float:
    """The largest magnitude of the accumulator in steps, for any int8 input and real-valued weights."""
    sums = weight.abs().double().flatten(1).sum(1) * (-INT8.lo * in_scale / step)
    if bias is not None:
        sums = sums + bias.detach().abs().double() / step
    return float(torch.max(sums)) * (1 + 2**-8)  # rounding the weights may add a little
