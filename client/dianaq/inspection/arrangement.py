"""How values that keep their batch are put into another order and shape: first permuted, then reshaped.

Any chain of transpositions and reshapes in which no dimension is cut or merged before it moves is one such step; what
differs in dimensions of size 1 alone is written in one way only. Plain Python, needs nothing installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from dianaq.schemas.resources import Arrangement

Shape = tuple[int, ...]


def unchanged(shape: Shape) -> Arrangement:
    """The arrangement of a tensor that is left as it is."""
    return Arrangement(axes=tuple(range(len(shape))), shape=shape)


def reshaped(source: Shape, made: Arrangement, shape: Shape) -> Arrangement:
    """An arrangement of a tensor of shape `source`, then a reshape; both have as many values."""
    assert math.prod(shape) == math.prod(source), f"{source} does not fill {shape}"
    return _normal(source, _moving(source, made), shape)


def permuted(source: Shape, made: Arrangement, order: Iterable[int]) -> Arrangement | None:
    """An arrangement, then a permutation of its dimensions; None where it moves a part of a dimension of `source`."""
    order = tuple(order)
    shape = tuple(made.shape[d] for d in order)
    moved = [d for d in order if made.shape[d] != 1]
    kept, axes = sorted(moved), _moving(source, made)
    if moved == kept:
        return _normal(source, axes, shape)
    if [source[a] for a in axes] != [made.shape[d] for d in kept]:
        return None
    of = dict(zip(kept, axes, strict=True))
    return _normal(source, [of[d] for d in moved], shape)


def followed(source: Shape, first: Arrangement, second: Arrangement) -> Arrangement | None:
    """Two arrangements one after the other as one, if they are; `first` takes a tensor of shape `source`."""
    between = permuted(source, first, second.axes)
    return None if between is None else reshaped(source, between, second.shape)


def inverse(source: Shape, made: Arrangement) -> Arrangement | None:
    """What leads from `made.shape` back to `source`; None where that is no arrangement."""
    before = reshaped(made.shape, unchanged(made.shape), tuple(source[a] for a in made.axes))
    return permuted(made.shape, before, sorted(range(len(source)), key=made.axes.__getitem__))


def keeps_order(source: Shape, made: Arrangement) -> bool:
    """Whether the values stay in their order in memory, so that only the shape changes."""
    moving = _moving(source, made)
    return moving == sorted(moving)


def source_axis(source: Shape, made: Arrangement, dim: int) -> int | None:
    """The axis of the source that is dimension `dim` of what is made; None where it is none, or a part of one."""
    before = math.prod(made.shape[:dim])
    sizes = [source[axis] for axis in made.axes]
    for i, axis in enumerate(made.axes):
        if sizes[i] == made.shape[dim] != 1 and math.prod(sizes[:i]) == before:
            return axis
    return None


def _moving(source: Shape, made: Arrangement) -> list[int]:
    """The axes that have more than one index, in their new order: all that an order of values depends on."""
    return [axis for axis in made.axes if source[axis] != 1]


def _normal(source: Shape, moving: list[int], shape: Shape) -> Arrangement:
    """The one way of writing an arrangement: axes of size 1 stand where they may be dimensions of the result."""
    if moving == sorted(moving):
        return Arrangement(axes=tuple(range(len(source))), shape=shape)
    whole, ones, axes = list(moving), [a for a, size in enumerate(source) if size == 1], []
    for size in shape:
        rest = ones if size == 1 else whole
        if rest:
            axes.append(rest.pop(0))
    return Arrangement(axes=(*axes, *whole, *ones), shape=shape)
