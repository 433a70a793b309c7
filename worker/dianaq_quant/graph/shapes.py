"""Shapes of a network's values, recorded once where the import's examples no longer are at hand."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from dianaq_quant.graph.surgery import Interpreter


class _Shapes(Interpreter):
    def see(self, node: fx.Node, value: Tensor) -> None:
        node.meta["shape"] = tuple(value.shape[1:])


def record_shapes(network: fx.GraphModule, input_shape: tuple[int, ...]) -> None:
    """Set `meta["shape"]` of every node to its value's shape without the batch dimension."""
    training = network.training
    network.eval()
    with torch.no_grad():
        _Shapes(network).run(torch.zeros(1, *input_shape, device=_device(network)))
    network.train(training)


def _device(network: fx.GraphModule) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
