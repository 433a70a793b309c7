"""Bounds, in one step or several, become the activations that the chip has."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq_quant.editors.lower.disjoint import disjoint
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.structure import Ceiling, Clamp, bounded


class BoundsToActivation(Editor):
    """`clamp(clamp(x, a, b), c, d) -> clamp(x, a', b')`, which is a ReLU or a ceiling where a' is 0.

    `a'` and `b'` are `a` and `b` clamped to [c, d]. A ReLU and a ceiling count as clamps from 0, so that
    `min(relu(x), c)` and `max(min(x, c), 0)` are ceilings. The inner one stays for what else reads it.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        yield from disjoint(self._candidates(network))

    def _candidates(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, outer in calls(network, Clamp, nn.ReLU, Ceiling):
            inner = _before(network, node)
            # Two activations in a row are what the canonical form knows.
            if _bounds(inner) is not None and any(isinstance(module, Clamp) for module in (outer, inner)):
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        outer, inner = _bounds(module_of(network, node)), _bounds(_before(network, node))
        assert outer is not None
        assert inner is not None
        lo, hi = (min(max(bound, outer[0]), outer[1]) for bound in inner)
        (source,) = node.args
        assert isinstance(source, fx.Node)
        set_module(network, node, bounded(lo, hi))
        node.args = source.args


def _before(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return module_of(network, source)


def _bounds(module: nn.Module | None) -> tuple[float, float] | None:
    if isinstance(module, Clamp):
        return module.lo, module.hi
    if isinstance(module, Ceiling):
        return 0.0, float(module.max_val)
    return (0.0, float("inf")) if isinstance(module, nn.ReLU) else None
