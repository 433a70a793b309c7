"""Every exact module becomes its integer counterpart."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, fx, nn

from dianaq.errors import QuantisationError
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, layer_of, module_of, set_module
from dianaq_quant.modules import exact, integer
from dianaq_quant.targets.diana import ACCUMULATOR_LIMIT, FLOAT32_EXACT_LIMIT

_EXACT = (
    exact.ExactInput,
    exact.ExactConv2d,
    exact.ExactLinear,
    exact.ExactAnalogConv2d,
    exact.ExactAdd,
    exact.ExactGlobalAvgPool2d,
    exact.ExactOutput,
)


class Integerise(Editor):
    """`round(W / s_w), round(b / s_acc) + 2^(n-1) -> int8, int32`: the very integers that the exact forward uses.

    Of an analog layer: ternary weights, `k`, `l`, and the converter's gain.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, _ in calls(network, *_EXACT):
            yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        set_module(network, node, _counterpart(node, module_of(network, node)))


def _counterpart(node: fx.Node, module: nn.Module | None) -> nn.Module:
    if isinstance(module, exact.ExactConv2d):
        return integer.IntegerConv2d(*_integers(node, module), _shift(module.requantise), module.geometry)
    if isinstance(module, exact.ExactLinear):
        return integer.IntegerLinear(*_integers(node, module), _shift(module.requantise))
    if isinstance(module, exact.ExactAnalogConv2d):
        return _analog(node, module)
    if isinstance(module, exact.ExactAdd):
        return integer.IntegerAdd(_shift(module.requantise))
    if isinstance(module, exact.ExactGlobalAvgPool2d):
        return integer.IntegerGlobalAvgPool2d(module.qrange)
    if isinstance(module, exact.ExactInput):
        return integer.IntegerInput(module.scale, module.qrange)
    assert isinstance(module, exact.ExactOutput)
    return integer.IntegerOutput(module.scale)


def _analog(node: fx.Node, module: exact.ExactAnalogConv2d) -> integer.IntegerAnalogConv2d:
    """The analog layer's integers.

    Raises:
        QuantisationError: `a k + l` could leave the integers that float32 holds (many row tiles); names the layer.
    """
    parts = (module.integer_weight(), module.integer_gain(), module.integer_bias())
    weight, k, offset = (part.detach() for part in parts)
    shift = _shift(module.requantise)
    layer = integer.IntegerAnalogConv2d(weight, k, offset, int(module.adc.gain), shift, module.geometry)
    if layer.bound >= FLOAT32_EXACT_LIMIT:
        raise QuantisationError(
            f"{layer_of(node)}: with {layer.tiles.count} row tiles its k and l can reach {layer.bound:.0f}, which "
            "float32 does not hold exactly; target.batch_norm_bits 8 keeps them smaller",
            param=layer_of(node),
        )
    return layer


def _shift(requantise: exact.Requantisation) -> integer.Shift:
    return integer.Shift(requantise.shift, requantise.qrange)


def _integers(node: fx.Node, module: exact.ExactLinearOp) -> tuple[Tensor, Tensor]:
    """Weight and bias as integers.

    Raises:
        QuantisationError: an int8 input could overflow the 32-bit accumulator; names the layer.
    """
    weight, bias = module.integer_weight().detach(), module.integer_bias().detach()
    bound = exact.accumulator_bound(weight, bias)
    if bound >= ACCUMULATOR_LIMIT:
        raise QuantisationError(
            f"{layer_of(node)}: its accumulator can reach {bound:.0f}, which exceeds 32 bits",
            param=layer_of(node),
        )
    return weight, bias
