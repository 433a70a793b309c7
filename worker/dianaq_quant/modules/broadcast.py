"""Constants that meet a tensor of the samples: along which of its dimensions they differ."""

from __future__ import annotations

import torch
from torch import Tensor

from dianaq_quant.modules.structure import Affine


def along_one_dimension(values: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, int]:
    """A constant that is broadcast to a tensor, as one value or one per index of one of the tensor's dimensions.

    Args:
        values: the constant, of any shape that broadcasts to (N, *shape) without enlarging it.
        shape: of the tensor, per sample.

    Returns:
        The values, shape (1,) or (n,) in float64, and the dimension, counted with the batch; 1 for a single value.

    Raises:
        ValueError: says why it is none; for a refusal that names the operation.
    """
    rank, given = len(shape) + 1, tuple(values.shape)
    aligned = (1,) * (rank - len(given)) + given
    target = (1, *shape)
    if len(aligned) > rank or any(a not in (1, t) for a, t in zip(aligned, target, strict=True)):
        raise ValueError(f"a constant of shape {given} meets {shape} per sample; one value, or one per channel, fits")
    values = values.detach().double().reshape(aligned)
    for dim in range(rank):
        first = values.narrow(dim, 0, 1)
        if torch.equal(values, first.expand_as(values)):
            values = first
    differing = [dim for dim in range(rank) if values.shape[dim] > 1]
    if len(differing) > 1:
        raise ValueError(
            f"a constant of shape {given} that differs along {len(differing)} dimensions; one value, or one per "
            "channel, would work"
        )
    return values.flatten(), differing[0] if differing else 1


def scaled(values: Tensor, shape: tuple[int, ...]) -> Affine:
    """`x * values`; raises as `along_one_dimension`."""
    scale, dim = along_one_dimension(values, shape)
    return Affine(scale, torch.zeros(1), dim)


def shifted(values: Tensor, shape: tuple[int, ...], factor: float = 1.0) -> Affine:
    """`factor * x + values`; raises as `along_one_dimension`."""
    shift, dim = along_one_dimension(values, shape)
    return Affine(torch.tensor([factor]), shift, dim)


def divided(values: Tensor, shape: tuple[int, ...]) -> Affine:
    """`x / values`; raises as `along_one_dimension`, and for a divisor of 0."""
    if not bool((values != 0).all()):
        raise ValueError("it divides by a constant that holds 0; one without zeros would work")
    return scaled(1.0 / values.detach().double(), shape)
