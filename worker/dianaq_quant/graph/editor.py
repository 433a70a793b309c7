"""The base of every graph rewrite: a finder that lists application points, an applier that edits one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import fx

from dianaq.errors import QuantisationError


@dataclass(frozen=True)
class Point:
    """A place where an editor applies: the nodes it will touch, the first being the one it is named after."""

    nodes: tuple[fx.Node, ...]
    note: str = ""


@dataclass(frozen=True)
class Rejection:
    """A candidate that was passed over, and why."""

    node: fx.Node
    reason: str


@dataclass(frozen=True)
class Edit:
    """What the report tells of one application point."""

    editor: str
    node: str
    applied: bool
    note: str


class Editor(ABC):
    """One rewrite. Its docstring gives the algebra as `before -> after`."""

    @abstractmethod
    def find(self, network: fx.GraphModule) -> Iterable[Point | Rejection]:
        """The finder: application points, and candidates with the reason why they are none."""

    @abstractmethod
    def apply(self, network: fx.GraphModule, point: Point) -> None:
        """The applier: edit one point, in place."""

    def __call__(self, network: fx.GraphModule) -> list[Edit]:
        """Apply the editor everywhere it applies.

        Raises:
            QuantisationError: two application points share a node, so that their order would matter.
        """
        name = type(self).__name__
        found = list(self.find(network))
        edits = [Edit(name, f.node.name, False, f.reason) for f in found if isinstance(f, Rejection)]
        points = [f for f in found if isinstance(f, Point)]
        taken: dict[fx.Node, fx.Node] = {}
        for point in points:
            for node in point.nodes:
                if node in taken:
                    raise QuantisationError(
                        f"{name} applies at {taken[node].name} and at {point.nodes[0].name}, "
                        f"and both points contain {node.name}",
                        param=node.name,
                    )
                taken[node] = point.nodes[0]
        for point in points:
            edits.append(Edit(name, point.nodes[0].name, True, point.note))
            self.apply(network, point)
        if points:
            network.graph.eliminate_dead_code()
            network.graph.lint()
            network.delete_all_unused_submodules()
            network.recompile()
        return edits


@dataclass(frozen=True)
class Repeated:
    """Some editors in turn, over and over until none of them applies: where each makes places for the others.

    They must come to an end by themselves.
    """

    editors: tuple[Editor, ...]

    def __call__(self, network: fx.GraphModule) -> list[Edit]:
        """Apply them all. Of what they pass over, only the last round tells."""
        done: list[Edit] = []
        while True:
            edits = run_editors(network, self.editors)
            applied = [edit for edit in edits if edit.applied]
            if not applied:
                return done + edits
            done += applied


def run_editors(network: fx.GraphModule, editors: Sequence[Editor | Repeated]) -> list[Edit]:
    """Apply editors in their order; the list of everything they did or passed over."""
    return [edit for editor in editors for edit in editor(network)]
