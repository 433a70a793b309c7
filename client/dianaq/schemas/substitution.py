"""Activations that no core computes, and what a job may put in their place."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

Activation = Literal[
    "hardswish",
    "leaky_relu",
    "prelu",
    "silu",
    "gelu",
    "elu",
    "selu",
    "celu",
    "mish",
    "softplus",
    "hardsigmoid",
    "sigmoid",
    "tanh",
]
"""Activation functions by the names that `torch.nn.functional` has for them; `silu` is Swish too."""

Replacement = Literal["relu", "relu6"]
"""Activations of the chip: the clips of a requantisation."""

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
REPLACEMENTS: tuple[Replacement, ...] = get_args(Replacement)

PROPOSED: dict[Activation, Replacement] = {
    kind: "relu6" if kind in ("hardswish", "hardsigmoid", "sigmoid", "tanh") else "relu" for kind in ACTIVATIONS
}
"""What a refusal proposes: a function that is bounded, or is the identity only from 3 on (HardSwish, which was made
from ReLU6: Howard et al., 2019), becomes the bounded one."""

_ALSO_CALLED = {"swish": "silu", "hard_swish": "hardswish", "hard_sigmoid": "hardsigmoid", "leaky": "leaky_relu"}
"""Names that users give to some of them, for suggestions alone."""


def _known(value: Any, names: tuple[str, ...], what: str) -> Any:
    if isinstance(value, str) and value not in names:
        plain = value.lower().removeprefix("nn.").removeprefix("f.")
        close = _ALSO_CALLED.get(plain) or next(iter(difflib.get_close_matches(plain, names, 1)), None)
        hint = f"did you mean {close!r}? There" if close in names else "there"
        raise ValueError(f"{value!r} is no {what}; {hint} are {', '.join(names)}")
    return value


def _activation(value: Any) -> Any:
    return _known(value, ACTIVATIONS, "activation that can be substituted")


def _replacement(value: Any) -> Any:
    return _known(value, REPLACEMENTS, "activation that a core computes")


Substitute = dict[
    Annotated[Activation, BeforeValidator(_activation)], Annotated[Replacement, BeforeValidator(_replacement)]
]
"""What becomes of each kind of activation: `{hardswish: relu6}`."""
