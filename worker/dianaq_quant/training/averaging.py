"""The moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx


class Average:
    """A copy of a network whose parameters follow those of the network slowly."""

    def __init__(self, network: fx.GraphModule, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self._decay = decay
        self._means: list[Tensor] = list(self.network.parameters())
        self._present: list[Tensor] = list(network.parameters())
        self._buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the present parameters; buffers are taken as they are.

        The first steps weigh more, so that the average soon forgets the state before training.

        Args:
            step: steps taken so far, this one included.
        """
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._means, self._present, weight)
        for mean, present in self._buffers:
            mean.copy_(present)
