"""Activation functions that a graph writes out, `x * sigmoid(x)`, told by what they compute.

Exporters and people write one function in many ways (`x * clip(x + 3, 0, 6) / 6` and `x * HardSigmoid(x)` are both
HardSwish). So no pattern is compared: whatever element-wise operations make of one tensor is computed at some points,
and the values say which function it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dianaq.schemas.substitution import Activation

Values = NDArray[np.float64]

POINTS: Values = np.linspace(-8, 8, 32)
"""Where functions are compared: beyond every kink of those that are known (3 is the last), and not at 0, where a
quotient x / x is undefined."""

TOLERANCE = 2e-5
"""Constants of files are float32, so that values differ by a millionth; GELU and its approximation by tanh differ by
5e-4 (Hendrycks and Gimpel, 2016)."""

MOST_OPERATIONS = 12
"""Of one function: GELU by tanh is written in nine."""

MOST_TRIED = 5_000
"""Tensors tried per graph, each with the operations up to some later one: half a second's work. A network tries a few
per activation; only a file made to keep its reader busy has more, and is refused for the operations then."""


def _erf(x: Values) -> Values:
    return np.array([math.erf(value) for value in np.ravel(x)])


def _sigmoid(x: Values) -> Values:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Values) -> Values:
    result: Values = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


def _clip(x: Values, low: Any = None, high: Any = None, **bounds: float) -> Values:
    """The bounds are inputs since opset 11, and were attributes before."""
    low, high = bounds.get("min", low), bounds.get("max", high)
    return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


ELEMENTWISE: Mapping[str, Callable[..., Values]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Clip": _clip,
    "Div": np.divide,
    "Elu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "Erf": _erf,
    "Exp": np.exp,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x > 0, x, alpha * x),
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": _sigmoid,
    "Softplus": _softplus,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Tanh": np.tanh,
    "Where": np.where,
}
"""ONNX's element-wise operators that activations are written with, and what they compute."""


_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")

ARITY: Mapping[str, tuple[int, ...]] = (
    dict.fromkeys(ELEMENTWISE, (1,))
    | dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", *_COMPARISONS), (2,))
    | {"Clip": (1, 2, 3), "Where": (3,)}
)
"""How many inputs each has; Clip may have its bounds as inputs."""


@dataclass(frozen=True)
class Operation:
    """An element-wise operation: its inputs are tensors by name, numbers, or None where one is left out."""

    name: str
    operator: str
    inputs: tuple[str | float | None, ...]
    output: str
    attributes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """An activation function that several operations write out.

    Args:
        kind: which it is, and with which parameters (`alpha`, `beta`, or `approximate`: 1).
        reads: the tensor that it is a function of.
        operations: those that write it out; the last gives its value.
    """

    kind: Activation
    parameters: Mapping[str, float]
    reads: str
    operations: tuple[Operation, ...]


def recognised(operations: Sequence[Operation], uses: Mapping[str, int]) -> list[Written]:
    """The activation functions that operations write out, by two of them or more.

    Args:
        operations: in the order in which they are computed. Two of one output are not allowed.
        uses: how often each tensor is read, by whatever; an output of the graph is read once more.
    """
    made = {operation.output: (place, operation) for place, operation in enumerate(operations)}
    tries = iter(range(MOST_TRIED))
    found: list[Written] = []
    taken: set[str] = set()
    for last in reversed(operations):
        if last.output in taken:
            continue
        best: Written | None = None
        for cone in _cones(last, made):
            if next(tries, None) is None:
                return found[::-1]
            inner = {operation.output for operation in cone.operations} - {last.output}
            if taken & inner or any(cone.reads_of(name) != uses.get(name, 0) for name in inner):
                continue
            if (known := identify(cone.values())) is not None:
                best = Written(*known, cone.variable, cone.operations)  # a larger one takes a factor before it in
        if best is not None:
            found.append(best)
            taken |= {operation.output for operation in best.operations}
    return found[::-1]


@dataclass(frozen=True)
class _Cone:
    """Operations that make a function of one tensor."""

    variable: str
    operations: tuple[Operation, ...]

    def reads_of(self, name: str) -> int:
        """How often the operations read a tensor."""
        return Counter(i for operation in self.operations for i in operation.inputs)[name]

    def values(self) -> Values:
        """What the last operation gives at the points."""
        known: dict[str, Values] = {self.variable: POINTS}
        with np.errstate(all="ignore"):
            for operation in self.operations:
                inputs = [known[i] if isinstance(i, str) else i for i in operation.inputs]
                known[operation.output] = ELEMENTWISE[operation.operator](*inputs, **operation.attributes)
        return known[self.operations[-1].output]


def _cones(last: Operation, made: Mapping[str, tuple[int, Operation]]) -> Iterator[_Cone]:
    """Every tensor that `last` is a function of, with the operations between, the nearest tensor first.

    Operations are taken in one after the other, always the one that is computed last; where a single tensor is left
    that they read, it is one.
    """
    inside = [last]
    while len(inside) <= MOST_OPERATIONS:
        outputs = {operation.output for operation in inside}
        open_ = {i for operation in inside for i in operation.inputs if isinstance(i, str)} - outputs
        if len(open_) == 1 and len(inside) > 1:
            yield _Cone(next(iter(open_)), tuple(sorted(inside, key=lambda operation: made[operation.output][0])))
        computed = [name for name in open_ if name in made]
        if not computed:
            return
        inside.append(made[max(computed, key=lambda name: made[name][0])][1])


def identify(y: Values) -> tuple[Activation, Mapping[str, float]] | None:
    """The activation function that has these values at the points, and its parameters; None for any other.

    What a core computes (ReLU, ReLU6, the identity) is none of them.
    """
    x = POINTS
    if not np.isfinite(y).all():
        return None
    for kind, parameters, function in _candidates(x, y):
        if np.abs(function - y).max() <= TOLERANCE * max(1.0, float(np.abs(y).max())):
            return kind, parameters
    return None


def _candidates(x: Values, y: Values) -> Iterator[tuple[Activation, Mapping[str, float], Values]]:
    """Functions with their values at the points; parameters are those that fit one or two of the values."""
    yield "sigmoid", {}, _sigmoid(x)
    yield "tanh", {}, np.tanh(x)
    yield "hardswish", {}, x * np.clip(x / 6 + 0.5, 0, 1)
    yield "gelu", {}, x * (1 + _erf(x / math.sqrt(2))) / 2
    yield "gelu", {"approximate": 1}, x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    yield "mish", {}, x * np.tanh(_softplus(x))
    yield "softplus", {}, _softplus(x)
    # Clevert et al., 2016; Klambauer et al., 2017, whose constants make activations keep their mean and variance.
    yield "selu", {}, 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    near = len(x) // 2  # the first point above 0; the one before it is its mirror image
    slope = float(y[0] / x[0])
    if 1e-4 < slope < 0.9999:
        yield "leaky_relu", {"alpha": slope}, np.where(x > 0, x, slope * x)
    alpha = float(y[0] / np.expm1(x[0]))
    if alpha > 1e-4:
        yield "elu", {"alpha": alpha}, np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    share = float(y[near] / x[near])
    if 1e-4 < share < 1 - 1e-4 and abs(share - 0.5) > 1e-4:
        beta = math.log(share / (1 - share)) / float(x[near])
        yield "silu", {} if abs(beta - 1) < 1e-4 else {"beta": beta}, x * _sigmoid(beta * x)
    rise, middle = float(y[near] - y[near - 1]) / float(x[near] - x[near - 1]), float(y[near] + y[near - 1]) / 2
    if rise > 1e-4 and 1e-4 < middle < 1 - 1e-4 and abs(rise * x[0]) > 1:
        yield "hardsigmoid", {"alpha": rise, "beta": middle}, np.clip(rise * x + middle, 0, 1)
