"""The figures of a network on a split."""

from __future__ import annotations

from torch import fx, inference_mode

from dianaq_quant.training.data import Normalisation, Split, batches
from dianaq_quant.training.memory import in_parts
from dianaq_quant.training.task import Figures, Task
from dianaq_quant.training.tasks import CLASSIFICATION


def evaluate(
    network: fx.GraphModule,
    split: Split,
    normalise: Normalisation,
    task: Task = CLASSIFICATION,
    teacher: fx.GraphModule | None = None,
) -> Figures:
    """Measure a network on a split, in evaluation mode; the network's mode is restored.

    Args:
        task: says which figures; where it needs labels, the split must have them.
        teacher: the float network, in evaluation mode, of a task that imitates; without it, the network is the float
            one itself.
    """
    training = network.training
    network.eval()
    with inference_mode():
        inputs = ((normalise(raw), labels) for raw, labels in batches(split))
        if task.imitates:
            model = network if teacher is None else teacher
            inputs = ((x, in_parts(model, x)) for x, _ in inputs)
        figures = task.measure((in_parts(network, x), x, labels) for x, labels in inputs)
    network.train(training)
    return figures
