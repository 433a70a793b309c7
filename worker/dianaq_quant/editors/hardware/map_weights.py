"""Weight ranges become those of the digital core."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq.schemas.quantisers import QuantiserSpec
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, core_of, module_of
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear
from dianaq_quant.modules.quantiser import WeightQuantiser
from dianaq_quant.targets.diana import INT8


class MapWeights(Editor):
    """`Q(W; s_c, range) -> Q(W; s, [-128, 127])`: int8, and one scale for the whole weight.

    The digital core has one shift for a layer, so that scales per channel end here. A range within int8 is kept: the
    core computes the same with fewer levels.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, FakeConv2d, FakeLinear):
            assert isinstance(module, FakeConv2d | FakeLinear)
            quantiser = module.quantiser
            if core_of(node) == "analog":
                continue
            if quantiser.spec.dimensions or not _stored(quantiser):
                yield Point((node,), f"{quantiser.qrange} {quantiser.spec.granularity} to {_target(quantiser).range}")
            else:
                yield Rejection(node, "its range is the chip's already, with one scale")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        module = module_of(network, point.nodes[0])
        assert isinstance(module, FakeConv2d | FakeLinear)
        module.quantiser = WeightQuantiser(_target(module.quantiser)).to(module.weight.device)
        module.quantiser.calibrate(module.weight)


def _stored(quantiser: WeightQuantiser) -> bool:
    """Whether int8 holds the range."""
    return INT8.lo <= quantiser.qrange.lo and quantiser.qrange.hi <= INT8.hi


def _target(quantiser: WeightQuantiser) -> QuantiserSpec:
    spec = quantiser.spec
    qrange = quantiser.qrange if _stored(quantiser) else INT8
    return spec.model_copy(update={"range": qrange, "granularity": "per-array"})
