"""Activation ranges become the digital core's, at the same clipping thresholds."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of
from dianaq_quant.modules.fake import FakeQuantiser, Scale
from dianaq_quant.targets.diana import INT8, RECTIFIED


class MapScale(Editor):
    """`Q(x; s, [lo, hi]) -> Q(x; s * hi / hi', [lo', hi'])`: the largest real value stays representable.

    The chip clips at [-128, 127] and, after a ReLU, at [0, 127], whatever ranges the recipe trained with. A scale
    that several quantisers share takes the largest of their factors.
    """

    def __init__(self) -> None:
        self._factors: dict[Scale, float] = {}

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        self._factors = {}
        for node, module in calls(network, FakeQuantiser):
            assert isinstance(module, FakeQuantiser)
            target = RECTIFIED if module.rectifies else INT8
            if (module.qrange.lo, module.qrange.hi) == (target.lo, target.hi):
                yield Rejection(node, "its range is the chip's already")
                continue
            factor = module.qrange.hi / target.hi
            self._factors[module.scale] = max(self._factors.get(module.scale, 0.0), factor)
            yield Point((node,), f"[{module.qrange.lo}, {module.qrange.hi}] to [{target.lo}, {target.hi}]")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        module = module_of(network, point.nodes[0])
        assert isinstance(module, FakeQuantiser)
        module.qrange = RECTIFIED if module.rectifies else INT8
        module.scale.set(module.scale.get() * self._factors.pop(module.scale, 1.0))
