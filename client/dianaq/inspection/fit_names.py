"""Whether the layers that a job names are there. Plain Python, needs nothing installed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from dianaq.errors import InvalidSpec
from dianaq.schemas.spec import JobSpec

IDENTITY, SCALE = "_identity", "_scale"
"""What the canonical form adds to a name, for a layer that it puts before one."""

_INPUT = "input"
"""The network's input by its name in reports; a rule may be for it."""


def check_mapping(spec: JobSpec, layers: Sequence[str]) -> None:
    """Refuse a `mapping.layers` that names no linear layer.

    Raises:
        InvalidSpec: names it, and layers that it may mean.
    """
    for name in spec.mapping.layers:
        if not any(name == layer or fnmatchcase(layer, name) for layer in layers):
            raise InvalidSpec(
                f"mapping.layers names {name!r}, which is no layer of the model, nor a pattern of one; "
                f"{_suggested(name, layers)}",
                param=f"mapping.layers.{name}",
            )


def check_rules(spec: JobSpec, nodes: Sequence[str]) -> None:
    """Refuse a rule of `recipe.quantisers` whose pattern matches nothing: it would be passed over in silence.

    Args:
        nodes: names of all that the network computes; a rule may be for an activation or an addition too.

    Raises:
        InvalidSpec: names the rule, and layers that it may mean.
    """
    if spec.start is not None and spec.start[1] != "float":  # whose quantisers are settled
        return
    for index, rule in enumerate(spec.recipe.quantisers.rules):
        names = (_INPUT, *(f"{node}{made}" for made in ("", IDENTITY, SCALE) for node in nodes))
        if not any(fnmatchcase(name, rule.layers) for name in names):
            where = f"recipe.quantisers.rules.{index}"
            raise InvalidSpec(
                f"{where} is for {rule.layers!r}, which is no layer of the model, nor a pattern of one; "
                f"{_suggested(rule.layers, nodes)}",
                param=f"{where}.layers",
            )


def _suggested(name: str, layers: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, layers) or layers[:3]
    return f"did you mean {', '.join(map(repr, close))}? It has {len(layers)} layers"
