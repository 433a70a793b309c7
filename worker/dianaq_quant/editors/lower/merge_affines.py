"""Affine maps in a row become one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.lower.disjoint import disjoint
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.structure import Affine


class MergeAffines(Editor):
    """`(x * s + b) * t + c -> x * (s t) + (b t + c)`: `(x - mean) / std`, or a BatchNorm written as Mul and Add.

    The inner one stays for what else reads it.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        yield from disjoint(self._candidates(network))

    def _candidates(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, outer in calls(network, Affine):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            inner = module_of(network, source)
            if isinstance(inner, Affine) and isinstance(outer, Affine):
                if _dimension(inner, outer) is not None:
                    yield Point((node, source))
                else:
                    yield Rejection(node, f"differs along another dimension than {source.name}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, source = point.nodes
        outer, inner = module_of(network, node), module_of(network, source)
        assert isinstance(outer, Affine)
        assert isinstance(inner, Affine)
        dim = _dimension(inner, outer)
        assert dim is not None
        set_module(network, node, Affine(inner.scale * outer.scale, inner.shift * outer.scale + outer.shift, dim))
        node.args = source.args


def _dimension(a: Affine, b: Affine) -> int | None:
    """The dimension along which either differs; None if they differ along two."""
    differing = {m.dim for m in (a, b) if max(len(m.scale), len(m.shift)) > 1}
    return None if len(differing) > 1 else next(iter(differing), 1)
