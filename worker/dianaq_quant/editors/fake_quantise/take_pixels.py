"""The normalisation of pixels moves into the first layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.scales import linear_readers
from dianaq_quant.graph.surgery import calls, input_node, module_of, only_user, set_module, tied_nodes
from dianaq_quant.modules.fake import FakeConv2d, FakeLinear, FakeLinearOp
from dianaq_quant.modules.pixels import PixelGrid, PixelQuantiser
from dianaq_quant.modules.quantiser import FakeQuantiser


class TakePixels(Editor):
    """`W x + b -> (W S) v + (b + W o)` with `x_c = s_c q_c + o_c`, `v = s q`, `S = diag(s_c / s)`, `s = max(s_c)`.

    Every weight of channel c meets `s_c q_c`, and `o_c` is a constant: the bias takes it, or the mean of the BatchNorm
    that follows. Zero padding is q = 0 from here on, which is `x_c = o_c` and no longer 0: with another normalisation
    than `o = 0` the result differs where a padded kernel reaches over the border, and nowhere else.
    """

    def __init__(self, grid: PixelGrid) -> None:
        self.grid = grid

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        source, tied = input_node(network), tied_nodes(network)
        for node, module in calls(network, FakeQuantiser):
            if node.args[0] is source and not isinstance(module, PixelQuantiser):
                readers = tuple(linear_readers(network, node))
                apart = ", untied from other calls" if tied & set(readers) else ""
                yield Point((node, *readers), f"input is pixel - 128, its normalisation in the layers after it{apart}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, *readers = point.nodes
        quantiser = module_of(network, node)
        assert isinstance(quantiser, FakeQuantiser)
        set_module(network, node, PixelQuantiser(quantiser.spec, self.grid))
        for reader in readers:
            layer = module_of(network, reader)
            assert isinstance(layer, FakeConv2d | FakeLinear)
            self._fold(network, reader, layer)

    def _fold(self, network: fx.GraphModule, node: fx.Node, layer: FakeLinearOp) -> None:
        """New parameters in every case: others may hold the old ones."""
        with torch.no_grad():
            origins = _over_inputs(layer, self.grid.origins)
            offset = (layer.weight * origins).double().flatten(1).sum(1).float()
            if len(set(self.grid.steps)) > 1:
                ratios = _over_inputs(layer, [step / self.grid.scale for step in self.grid.steps])
                layer.weight = nn.Parameter(layer.weight * ratios)
            follower = only_user(node)
            norm = module_of(network, follower) if follower is not None else None
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                assert norm.running_mean is not None
                norm.running_mean = norm.running_mean - offset
            else:
                layer.bias = nn.Parameter(offset if layer.bias is None else layer.bias + offset)


def _over_inputs(layer: FakeLinearOp, values: tuple[float, ...] | list[float]) -> Tensor:
    """Values per channel of the input (or one for all), in a shape that broadcasts over the layer's weight.

    A flattened map has H * W columns per channel; output channels of a grouped convolution see their group's inputs.
    """
    tensor = torch.tensor(values, dtype=layer.weight.dtype, device=layer.weight.device)
    if isinstance(layer, FakeLinear):
        return tensor.repeat_interleave(layer.in_features // len(tensor))
    per_group = tensor.expand(layer.in_channels).reshape(layer.groups, -1)
    per_output = per_group.repeat_interleave(layer.out_channels // layer.groups, 0)
    return per_output.reshape(*per_output.shape, 1, 1)
