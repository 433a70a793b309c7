"""The end of both ways in: what the job wants changed is changed, and what no core computes is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx, nn

from dianaq.errors import UnsupportedOperator
from dianaq.inspection.substitution import RANKING, final_refusal, refusal
from dianaq.schemas.spec import JobSpec, TaskName
from dianaq.schemas.substitution import Activation, Replacement
from dianaq_quant.editors.canonicalise import DropSigmoid, Substitute, activations, final_sigmoid, with_originals
from dianaq_quant.graph import Edit, Editor, Repeated, run_editors
from dianaq_quant.graph.surgery import calls, layer_of
from dianaq_quant.importers.network import CANONICAL, Network
from dianaq_quant.importers.own import Operators, installed


@dataclass(frozen=True)
class Wishes:
    """What a job wants of its import.

    Args:
        substitute: what replaces each kind of activation that no core computes.
        task: says whether a sigmoid at the end matters.
        operators: the user's own, beside those of installed packages.
        editors: the user's own, which run before anything is substituted or refused.
    """

    substitute: Mapping[Activation, Replacement] = field(default_factory=dict)
    task: TaskName = "classification"
    operators: Operators = field(default_factory=Operators)
    editors: Sequence[Editor] = ()

    @classmethod
    def of(cls, spec: JobSpec, operators: Operators | None = None, editors: Sequence[Editor] = ()) -> Wishes:
        """Those of a job."""
        return cls(spec.substitute, spec.task, operators or Operators(), editors)

    def all_operators(self) -> Operators:
        """The user's own, which go before those of installed packages."""
        return installed() | self.operators


def finish(network: Network, wishes: Wishes) -> Network:
    """Drop a final sigmoid, substitute, and refuse what is left that no core computes.

    `network.original` becomes the network before the substitution, if there was any to do.

    Raises:
        UnsupportedOperator: names the layers, and what would work.
    """
    graph = network.graph
    if wishes.task in RANKING:
        dropped = edits_by_layer(graph, [DropSigmoid()])
        network.notes += [f"{edit.node}: {edit.note}" for edit in dropped]
        network.edits += dropped
    elif (final := final_sigmoid(graph)) is not None and "sigmoid" not in wishes.substitute:
        name = layer_of(final)
        raise UnsupportedOperator(
            final_refusal(name, "Sigmoid", wishes.task, layer_of(final.all_input_nodes[0])), param=name
        )
    kinds = [kind for _, kind in activations(graph)]
    network.edits += edits_by_layer(graph, [Substitute(wishes.substitute)])
    for kind, other in wishes.substitute.items():
        network.notes.append(
            f"{kind} became {other} at {kinds.count(kind)} place{'s' * (kinds.count(kind) != 1)}"
            if kind in kinds
            else f"substitute names {kind}, which the network does not have"
        )
    network.original = with_originals(graph)
    if left := {layer_of(node): kind for node, kind in activations(graph)}:
        raise UnsupportedOperator(refusal(left), param=next(iter(left)))
    _check_canonical(graph)
    return network


def _check_canonical(graph: fx.GraphModule) -> None:
    """What an own operator or editor has left must be what the later stages know."""
    for node, module in calls(graph, nn.Module):
        if type(module) not in CANONICAL:
            known = ", ".join(sorted(kind.__name__ for kind in CANONICAL))
            raise UnsupportedOperator(
                f"node {layer_of(node)!r} ({type(module).__name__}): no core computes it; own operators and editors "
                f"may leave {known}",
                param=layer_of(node),
            )


def edits_by_layer(graph: fx.GraphModule, editors: Sequence[Editor | Repeated]) -> list[Edit]:
    """Run editors; what they did, by the layers' names."""
    layers = {node.name: layer_of(node) for node in graph.graph.nodes}
    return [
        Edit(edit.editor, layers.get(edit.node, edit.node), edit.applied, edit.note)
        for edit in run_editors(graph, editors)
    ]
