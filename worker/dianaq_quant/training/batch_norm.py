"""BatchNorm statistics that fit the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from dianaq_quant.training.data import EVALUATION_BATCH, Data
from dianaq_quant.training.memory import is_out_of_memory

Norm = nn.BatchNorm1d | nn.BatchNorm2d

REESTIMATION_SAMPLES = 2000
"""Training samples from which statistics are taken, 8 batches: a channel's mean over 2000 maps is known to a few
percent of its deviation even where only one value of each map counts, at a hundredth of an epoch of CIFAR-10."""


def reestimate_batch_norm(network: fx.GraphModule, data: Data) -> None:
    """Replace the running statistics of every BatchNorm by those of training samples, for the present weights.

    Averaged weights have statistics of their own: those that training kept belong to weights that jumped about, which
    matters most where weights are few levels apart (Izmailov et al., 2018, section 3.2).
    """
    norms = [m for m in network.modules() if isinstance(m, Norm)]
    if not norms:
        return
    kept = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    # Shuffled: the set may be sorted by class, and the variance is the mean of those within the batches.
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:REESTIMATION_SAMPLES]
    parts = math.ceil(len(order) / EVALUATION_BATCH)
    # In batches of one size, as all count the same; smaller ones where they do not fit into memory.
    while not _estimated(network, norms, data, order.tensor_split(parts)):
        parts *= 2
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.no_grad()
def _estimated(network: nn.Module, norms: list[Norm], data: Data, batches: Sequence[Tensor]) -> bool:
    """Take statistics anew from batches of the given indices; False where they do not fit into memory."""
    for norm in norms:
        norm.reset_running_stats()
    try:
        for batch in batches:
            network(data.normalise(data.train.pick(batch).x))
    except (RuntimeError, MemoryError) as error:
        # There is no variance of one sample: halves of at least two must be left.
        if min(map(len, batches)) < 4 or not is_out_of_memory(error):
            raise
        return False
    return True
