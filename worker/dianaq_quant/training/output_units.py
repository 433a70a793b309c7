"""The last layer's parameters as the optimiser sees them: in the unit of the outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from dianaq_quant.graph.surgery import module_of, output_node


class OutputUnits:
    """`p / s` with the gradient `s dL/dp` in place of p, row by row, while the optimiser takes its step.

    A network whose outputs are thousands has a last layer of weights that are thousands times as large, and steps of a
    recipe's learning rate would not move them; its gradients, of a loss that counts errors in standard deviations, are
    as much too small. In units s of the outputs both are as those of any other layer. s is a power of two, so that
    nothing is rounded: labels in units of 1/1024 train the same network, bit for bit, times 1024.

    Args:
        std: standard deviations of the outputs, of each or of each channel; None where the unit does not matter.
    """

    def __init__(self, network: fx.GraphModule, std: Tensor | None) -> None:
        self._scaled: list[tuple[nn.Parameter, Tensor]] = []
        for parameter in () if std is None else _last_parameters(network):
            assert std is not None
            rows = len(parameter)
            if std.numel() % rows == 0:
                # Values of a flattened map come channel by channel.
                size = std.reshape(rows, -1).mean(1).to(parameter)
                unit = torch.exp2(size.log2().round()).reshape(-1, *[1] * (parameter.dim() - 1))
                self._scaled.append((parameter, unit))

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within it, parameters and gradients are in units of the outputs."""
        with torch.no_grad():
            for parameter, unit in self._scaled:
                parameter.div_(unit)
                if parameter.grad is not None:
                    parameter.grad.mul_(unit)
        yield
        with torch.no_grad():
            for parameter, unit in self._scaled:
                parameter.mul_(unit)


def _last_parameters(network: fx.GraphModule) -> Iterator[nn.Parameter]:
    """Weights and biases of the layers (or their BatchNorms) that the output comes from, one row an output channel."""
    open_, seen = [output_node(network)], set()
    while open_:
        node = open_.pop()
        if node in seen:
            continue
        seen.add(node)
        module = module_of(network, node)
        found = [p for name in ("weight", "bias") if isinstance(p := getattr(module, name, None), nn.Parameter)]
        if found:
            yield from found
        else:
            open_ += node.all_input_nodes
