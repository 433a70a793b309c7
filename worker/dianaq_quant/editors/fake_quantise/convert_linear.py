"""Linear layers get a weight quantiser."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.errors import InvalidSpec
from dianaq.schemas.quantisers import Quantisers
from dianaq_quant.editors.fake_quantise.specs import check_rules, weight_spec
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, layer_of, module_of, set_module
from dianaq_quant.modules.fake import fake_linear_op
from dianaq_quant.modules.quantiser import WeightQuantiser
from dianaq_quant.modules.structure import Conv2d


class ConvertLinear(Editor):
    """`W x + b -> Q(W) x + b`, with the quantiser that the recipe gives to the layer's name, type and core."""

    def __init__(self, quantisers: Quantisers) -> None:
        self.quantisers = quantisers

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        check_rules(self.quantisers, network)
        for node, layer in calls(network, Conv2d, nn.Linear):
            spec = weight_spec(self.quantisers, network, node)
            assert isinstance(layer, Conv2d | nn.Linear)
            if any(d >= layer.weight.dim() for d in spec.dimensions):
                raise InvalidSpec(
                    f"granularity {spec.granularity} does not fit the weight of {layer_of(node)}, "
                    f"whose shape is {tuple(layer.weight.shape)}",
                    param="recipe.quantisers",
                )
            yield Point((node,), f"weights in {spec.range}, {spec.granularity}, {spec.function}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        layer = module_of(network, node)
        assert isinstance(layer, Conv2d | nn.Linear)
        set_module(network, node, fake_linear_op(layer, WeightQuantiser(weight_spec(self.quantisers, network, node))))
