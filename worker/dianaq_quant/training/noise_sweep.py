"""How much accuracy a finished network keeps on noisy converters."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from torch import fx

from dianaq.errors import JobCancelled
from dianaq.schemas.cores import Noise, NoiseSweep
from dianaq_quant.modules.adc import disturb, silence
from dianaq_quant.training.data import Normalisation, Split
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.task import Task


def noise_sweep(
    network: fx.GraphModule,
    split: Split,
    normalise: Normalisation,
    task: Task,
    sweep: NoiseSweep,
    noise: Noise,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
    teacher: fx.GraphModule | None = None,
) -> list[dict[str, Any]]:
    """Measure a hardware-exact network under each level of Gaussian noise, as if on several chips.

    A draw is one chip: its columns' errors (`noise`) stay, the Gaussian noise is new in every conversion.

    Args:
        teacher: the float network, of a task that imitates it.

    Returns:
        Per level: `gaussian` in LSB, `draws`, `samples`, and mean and standard deviation over draws of each figure.

    Raises:
        JobCancelled: `should_stop` turned true.
    """
    found = []
    for level in sweep.gaussian:
        present = noise.model_copy(update={"gaussian": level})
        draws = 1 if present.silent else sweep.draws  # without noise, all draws are alike
        figures = []
        for draw in range(draws):
            if should_stop():
                raise JobCancelled("cancelled in the noise sweep")
            disturb(network, present, seed + draw, chip=True)
            figures.append(evaluate(network, split, normalise, task, teacher).values)
        entry: dict[str, Any] = {"gaussian": level, "draws": draws, "samples": len(split)}
        for name in figures[0]:
            values = [f[name] for f in figures]
            entry[name] = {"mean": statistics.fmean(values), "std": statistics.stdev(values) if draws > 1 else 0.0}
        found.append(entry)
    silence(network)
    return found
