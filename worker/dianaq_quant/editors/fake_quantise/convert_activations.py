"""Activation functions become quantisers."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.schemas.quantisers import Quantisers, QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors.fake_quantise.specs import activation_spec
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Ceiling


class ConvertActivations(Editor):
    """`relu(x) -> Q(x)` with a range that starts at 0: clipping at 0 is the ReLU.

    A saturating activation fixes the scale (its ceiling is the largest integer), so that nothing is learned of it.
    """

    def __init__(self, quantisers: Quantisers) -> None:
        self.quantisers = quantisers

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, nn.ReLU, Ceiling):
            spec = activation_spec(self.quantisers, network, node)
            yield Point((node,), f"rectified activation in {_rectified(spec)}, {spec.function}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        module, spec = module_of(network, node), activation_spec(self.quantisers, network, node)
        ceiling = float(module.max_val) if isinstance(module, Ceiling) else None
        if ceiling is not None:
            spec = spec.model_copy(update={"function": "ste"})
        set_module(network, node, FakeQuantiser(spec, _rectified(spec), ceiling=ceiling))


def _rectified(spec: QuantiserSpec) -> QRange:
    return QRange(n_levels=spec.range.levels, signed=False)
