"""Activation ranges become those of the cores that make and read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import fx

from dianaq.schemas.quantisers import MSE
from dianaq.schemas.ranges import QRange
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import source_quantiser
from dianaq_quant.graph.surgery import calls, core_of, input_node, module_of
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d
from dianaq_quant.modules.quantiser import FakeQuantiser, Scale
from dianaq_quant.quantisers import Seen, choose_scale
from dianaq_quant.targets.diana import ANALOG_INPUT, INT8, RECTIFIED


class MapScale(Editor):
    """`Q(x; s, [lo, hi]) -> Q(x; s', [lo', hi'])` with `s' = s * hi / hi'`: the largest real value stays representable.

    The chip clips at [-128, 127] and, after a ReLU, at [0, 127]; signed inputs of the analog core at [-63, 63]. A scale
    that several quantisers share takes the largest of their factors. What the analog core reads gets the power of two
    with the least squared error on the observed values, now and not later, so that the converter's steps stay what
    they are trained as; a fixed ceiling (ReLU6) and the input's own grid are kept instead.

    Args:
        input_steps: real value of one integer of the input, for each range, where its grid is known (images).
    """

    def __init__(self, input_steps: Mapping[QRange, float] | None = None) -> None:
        self.input_steps = input_steps or {}
        self._targets: dict[FakeQuantiser, QRange] = {}
        self._scales: dict[Scale, float] = {}
        self._fixed: set[Scale] = set()
        self._gridded: set[Scale] = set()

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        quantisers = {node: m for node, m in calls(network, FakeQuantiser) if isinstance(m, FakeQuantiser)}
        entrance = next(iter(input_node(network).users))
        analog = _read_by_analog(network)
        self._targets = {m: _target(m, m in analog) for m in quantisers.values()}
        self._scales, self._fixed, self._gridded = {}, {m.scale for m in analog if m.ceiling is None}, set()
        for scale in {m.scale: None for m in quantisers.values()}:
            members = [m for m in quantisers.values() if m.scale is scale]
            self._scales[scale] = scale.get() * max(_factor(m.qrange, self._targets[m]) for m in members)
            first = quantisers[entrance]
            if first in members and first in analog and self._targets[first] in self.input_steps:
                self._scales[scale] = self.input_steps[self._targets[first]]
                self._gridded.add(scale)
            elif scale in self._fixed:
                self._scales[scale] = choose_scale(
                    [Seen.by(m.observer, self._targets[m]) for m in members], MSE, base=1.0
                )
        for node, module in quantisers.items():
            target, before, after = self._targets[module], module.scale.get(), self._scales[module.scale]
            if (module.qrange.lo, module.qrange.hi) == (target.lo, target.hi) and before == after:
                yield Rejection(node, "its range is the chip's already")
            else:
                yield Point((node,), f"{module.qrange} to {target}, scale {before:.4g} to {after:.4g}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        module = module_of(network, point.nodes[0])
        assert isinstance(module, FakeQuantiser)
        module.qrange = self._targets[module]
        scale = self._scales.pop(module.scale, None)  # once for all that share it
        if scale is None:
            return
        if module.scale in self._gridded or (module.scale in self._fixed and not module.scale.power_of_two):
            module.scale.freeze(scale)  # exactly: a converter's input is a sum of integers times a power of two
        else:
            module.scale.rescale(scale / module.scale.get())


def _factor(before: QRange, after: QRange) -> float:
    """What a scale grows by. Two's complement has one step in excess below; a learned offset may give it many more,
    and then what lies below stays representable as well."""
    up = before.hi / after.hi
    return up if -before.lo <= before.hi + 1 else max(up, before.lo / after.lo)


def _target(module: FakeQuantiser, read_by_analog: bool) -> QRange:
    if module.rectifies:
        return RECTIFIED
    return ANALOG_INPUT if read_by_analog else INT8


def _read_by_analog(network: fx.GraphModule) -> set[FakeQuantiser]:
    """Quantisers of what a layer on the analog core reads."""
    layers = (node for node, _ in calls(network, FakeConv2d, FakeAnalogConv2d) if core_of(node) == "analog")
    return {source_quantiser(network, node) for node in layers}
