"""A quantiser of one's own: an autograd function, a name, and a recipe that calls it by that name.

    python examples/own_quantiser.py [folder]

Needs the library (`dianaq[quant]`) and scikit-learn, whose handwritten digits are the data. It takes a few seconds.
Only a process that has registered a quantiser knows it: functions cannot be uploaded to a service.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from digits import write_files
from torch import Tensor
from torch.autograd import Function

from dianaq.schemas.events import EventBody, MetricsBody
from dianaq.schemas.spec import parse_spec
from dianaq_quant.pipeline import run
from dianaq_quant.quantisers import register_quantiser


class LeakyClip(Function):
    """Rounds and clips as every quantiser does, but lets a tenth of the gradient through where it clips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
        q = torch.floor(x / scale + 0.5)
        ctx.save_for_backward((q >= lo) & (q <= hi))
        return q.clamp(lo, hi) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * torch.where(inside, 1.0, 0.1), None, None, None


def main(folder: Path) -> None:
    """Quantise the digits network with 4-bit weights of that quantiser; the bundle is left in the folder."""
    register_quantiser("leaky_clip", LeakyClip)
    weights = {"function": "leaky_clip", "range": {"bitwidth": 4, "signed": True}}
    training = {"epochs": 2, "learning_rate": 0.05}
    recipe = {"quantisers": {"weights": weights}, "float": training, "fake_quantised": training}
    model, dataset = write_files(folder)
    spec = parse_spec({"model": model.name, "dataset": dataset.name, "recipe": recipe})

    def show(event: EventBody) -> None:
        if isinstance(event, MetricsBody) and event.epoch is None:
            print(event.stage, event.values)

    run(spec, model_path=model, dataset_path=dataset, out_dir=folder / "bundle", emit=show)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
