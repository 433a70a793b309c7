"""The quantisers' functions by name: those that are built in, and a user's own.

Example:
    >>> class Doubled(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x, scale, lo, hi):
    ...         return torch.floor(x / scale + 0.5).clamp_(lo, hi) * scale
    ...
    ...     @staticmethod
    ...     def backward(ctx, gradient):
    ...         return 2 * gradient, None, None, None
    >>> register_quantiser("doubled", Doubled)
    >>> Recipe(quantisers={"weights": {"function": "doubled"}})
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.autograd import Function

from dianaq.schemas.quantisers import BUILT_IN_FUNCTIONS, registered_functions
from dianaq_quant.quantisers.functions import ClippedReLU, LearnedScale, Sign, StraightThrough


@dataclass(frozen=True)
class QuantiserFunction:
    """How a quantiser computes and what it learns.

    Args:
        function: `forward(ctx, x, scale, lo, hi)` gives the fake-quantised x; `backward` the gradients of x and,
            if `learns_scale`, of the scale (of the scale's shape), then two times None.
        learns_scale: whether the scale is a parameter.
        power_of_two: whether the scale is `2^ceil(t)` of a learned t.
    """

    function: type[Function]
    learns_scale: bool = False
    power_of_two: bool = False


_FUNCTIONS: dict[str, QuantiserFunction] = {
    "ste": QuantiserFunction(StraightThrough),
    "pact": QuantiserFunction(ClippedReLU, learns_scale=True),
    "tqt": QuantiserFunction(LearnedScale, learns_scale=True, power_of_two=True),
    "ternary": QuantiserFunction(LearnedScale, learns_scale=True),
    "binary": QuantiserFunction(Sign, learns_scale=True),
}


def register_quantiser(
    name: str, function: type[Function], *, learns_scale: bool = False, power_of_two: bool = False
) -> None:
    """Make a quantiser of one's own known to recipes of this process; registering a name again replaces it.

    Integers are taken from its scale by rounding, so its forward must give `s * clip(floor(x/s + 1/2), lo, hi)`.

    Raises:
        ValueError: the name is that of a built-in function.
    """
    if name in BUILT_IN_FUNCTIONS:
        raise ValueError(f"{name!r} is built in; choose another name than {', '.join(BUILT_IN_FUNCTIONS)}")
    _FUNCTIONS[name] = QuantiserFunction(function, learns_scale, power_of_two)
    registered_functions.add(name)


def quantiser_function(name: str) -> QuantiserFunction:
    """The function of that name.

    Raises:
        ValueError: none is known; names those that are.
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"no quantiser function {name!r}; known are {', '.join(_FUNCTIONS)}")
    return _FUNCTIONS[name]
