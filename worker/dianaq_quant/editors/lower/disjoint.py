"""For editors whose points may share nodes: one of a round applies, those it is in the way of are found again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import fx

from dianaq_quant.graph import Point, Rejection


def disjoint(found: Iterable[Point | Rejection]) -> Iterator[Point | Rejection]:
    """Leave out points that share a node with one before them. The editor must be `Repeated`."""
    taken: set[fx.Node] = set()
    for candidate in found:
        if isinstance(candidate, Point):
            if not taken.isdisjoint(candidate.nodes):
                continue
            taken.update(candidate.nodes)
        yield candidate
