"""The figures of a network on a split."""

from __future__ import annotations

from torch import fx, inference_mode

from dianaq_quant.training.data import Normalisation, Split, batches
from dianaq_quant.training.memory import in_parts
from dianaq_quant.training.tasks import CLASSIFICATION, Figures, Task


def evaluate(network: fx.GraphModule, split: Split, normalise: Normalisation, task: Task = CLASSIFICATION) -> Figures:
    """Measure a network on a split, in evaluation mode; the network's mode is restored.

    Args:
        task: says which figures; where it needs labels, the split must have them.
    """
    training = network.training
    network.eval()
    with inference_mode():
        inputs = ((normalise(raw), labels) for raw, labels in batches(split))
        figures = task.measure((in_parts(network, x), x, labels) for x, labels in inputs)
    network.train(training)
    return figures
