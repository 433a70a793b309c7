"""Whether a job substitutes the activations that no core computes. Plain Python, needs nothing installed."""

from __future__ import annotations

from collections.abc import Mapping

from dianaq.errors import UnsupportedOperator
from dianaq.schemas.resources import FinalActivation
from dianaq.schemas.spec import JobSpec, TaskName
from dianaq.schemas.substitution import ACTIVATIONS, PROPOSED

RANKING: frozenset[TaskName] = frozenset({"classification"})
"""Tasks that ask which of the outputs is the largest: a Sigmoid at the end does not change it."""

VALUED: frozenset[TaskName] = frozenset({"regression", "reconstruction"})
"""Tasks that compare the outputs with given numbers, which a Softmax makes others of. An imitation compares what both
networks give before it."""

GATES = ("sigmoid", "hardsigmoid")
"""What the gates of squeeze-and-excitation blocks are."""

_NAMED = 3
"""Nodes named per kind."""


def check_substitution(spec: JobSpec, nodes: Mapping[str, str], final: FinalActivation | None) -> None:
    """Refuse a job that leaves an activation as it is which no core computes.

    Args:
        nodes: the kind of each such activation, by its node's (or layer's) name.
        final: the Sigmoid or Softmax that gives the network's output, if there is one.

    Raises:
        UnsupportedOperator: names the nodes, and the `substitute` that would cover them.
    """
    if final is not None and final.kind == "softmax":
        if spec.task in VALUED:
            raise UnsupportedOperator(final_refusal(final.node, "Softmax", spec.task, final.reads), param=final.node)
    elif final is not None and "sigmoid" not in spec.substitute:
        if spec.task not in RANKING:
            raise UnsupportedOperator(final_refusal(final.node, "Sigmoid", spec.task, final.reads), param=final.node)
        nodes = {name: kind for name, kind in nodes.items() if name != final.node}
    missing = {name: kind for name, kind in nodes.items() if kind not in spec.substitute}
    if missing:
        raise UnsupportedOperator(refusal(missing), param=next(iter(missing)))


def final_refusal(node: str, operator: str, task: TaskName, reads: str) -> str:
    """Why a Sigmoid or Softmax at the end cannot stay where its values matter, and what would work."""
    return (
        f"node {node!r} ({operator}) gives the network's output, and no core computes it; a classification drops it, "
        f"but {task} needs its values. End the network before it (part: {{to: {reads}}}), with data of that scale"
    )


def refusal(nodes: Mapping[str, str]) -> str:
    """Why these activations cannot stay, and what a job would say to have them replaced."""
    kinds = [kind for kind in ACTIVATIONS if kind in nodes.values()]
    where = "; ".join(f"{kind} (node {_some([n for n, k in nodes.items() if k == kind])})" for kind in kinds)
    line = ", ".join(f"{kind}: {PROPOSED[kind]}" for kind in kinds)
    options = " ".join(f"{kind}={PROPOSED[kind]}" for kind in kinds)
    return (
        f"no core computes {where}. substitute: {{{line}}} in the job (--substitute {options}) puts activations of the "
        "chip in their place, before the float iteration; that makes another network of it, which training gains most "
        "of back: without, the report says what it costs"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
