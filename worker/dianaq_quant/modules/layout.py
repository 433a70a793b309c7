"""Operations that move values and compute nothing. Both are raw: `editors.lower` brings networks into a form without.

No core moves values. A network in another layout than (N, C, H, W) becomes one in that layout instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from dianaq.inspection.arrangement import keeps_order, permuted, unchanged
from dianaq.schemas.resources import Arrangement
from dianaq_quant.modules.structure import Flatten

Shape = tuple[int, ...]


def rearrange(x: Tensor, arrangement: Arrangement) -> Tensor:
    """Every sample of a batch in another order and shape; a view where there is one."""
    moved = x.permute(0, *(axis + 1 for axis in arrangement.axes))
    return moved.reshape(len(x), *arrangement.shape)


class Rearrange(nn.Module):
    """A permutation of a sample's dimensions, then a reshape. See `dianaq.inspection.arrangement`.

    Transpositions, squeezes and the steps between (N, C, L) and (N, C, 1, L) are all of this kind.
    """

    def __init__(self, arrangement: Arrangement) -> None:
        super().__init__()
        self.arrangement = arrangement

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(x, self.arrangement)


class Reorder(nn.Module):
    """The values of a vector in another order: `y[:, i] = x[:, order[i]]`."""

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.order]


def permutation(shape: Shape, order: Sequence[int]) -> Rearrange:
    """A permutation of the dimensions of samples of a shape, the batch left out: (2, 0, 1) makes CHW of HWC."""
    made = permuted(shape, unchanged(shape), order)
    assert made is not None, "whole dimensions move"
    return Rearrange(made)


def reshape(source: Shape, shape: Shape) -> nn.Module:
    """Values in their order, in another shape."""
    return rearranging(source, Arrangement(axes=tuple(range(len(source))), shape=shape))


def rearranging(source: Shape, made: Arrangement) -> nn.Module:
    """The module of an arrangement of tensors of a shape; the canonical one where it only flattens."""
    if len(made.shape) == 1 and keeps_order(source, made):
        return Flatten()
    return Rearrange(made)


def arrangement_of(module: Rearrange | Flatten, source: Shape) -> Arrangement:
    """What a module does to tensors of a shape, whose values it moves."""
    if isinstance(module, Rearrange):
        return module.arrangement
    return Arrangement(axes=tuple(range(len(source))), shape=(math.prod(source),))


def over_space(shape: Shape, channels: int, result: Shape, reduction: nn.Module) -> tuple[nn.Module, ...]:
    """Modules that reduce samples of a shape over all dimensions but one.

    Args:
        channels: the dimension that stays, of a sample.
        result: shape of what is left, the dimensions of size 1 included that are to stay.
        reduction: takes (N, C, H, W) to (N, C, 1, 1).
    """
    gone = [d for d in range(len(shape)) if d != channels]
    order, size = (channels, *gone), [shape[d] for d in gone]
    size = [math.prod(size[:-1]), size[-1]]
    ordered, grid = tuple(shape[d] for d in order), (shape[channels], size[0], size[1])
    modules: list[nn.Module] = []
    if order != tuple(range(len(shape))):
        modules.append(permutation(shape, order))
    if ordered != grid:
        modules.append(reshape(ordered, grid))
    modules.append(reduction)
    if result != (shape[channels], 1, 1):
        modules.append(reshape((shape[channels], 1, 1), result))
    return tuple(modules)


def of_line(shape: Shape, modules: Sequence[nn.Module], result: Shape | None = None) -> tuple[nn.Module, ...]:
    """Modules of maps for the samples (C, L) of a 1-d network, which they take as (C, 1, L).

    Args:
        result: shape (C, L) of what they make; default: that of what they take.
    """
    channels, length = result or shape
    lifted, lowered = (shape[0], 1, shape[1]), (channels, 1, length)
    return (reshape(shape, lifted), *modules, reshape(lowered, (channels, length)))
