"""Accuracy of a network on a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

from dianaq_quant.training.data import Normalisation, Split, batches


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy and mean cross-entropy, with the number of samples they were measured on."""

    top1: float
    loss: float
    samples: int


def evaluate(network: fx.GraphModule, split: Split, normalise: Normalisation) -> Accuracy:
    """Measure a classifier on a labelled split, in evaluation mode; the network's mode is restored."""
    training = network.training
    network.eval()
    right, loss = 0, 0.0
    with torch.inference_mode():
        for raw, labels in batches(split):
            assert labels is not None
            logits = network(normalise(raw))
            right += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    network.train(training)
    return Accuracy(right / len(split), loss / len(split), len(split))
