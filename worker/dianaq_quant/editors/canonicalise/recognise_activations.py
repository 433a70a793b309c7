"""Activations that a traced network writes out become modules."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from dianaq.inspection.elementwise import ARITY, Operation, Written, recognised
from dianaq_quant.editors.canonicalise.traced_call import Chain, key_of, replace
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import module_of
from dianaq_quant.modules.activations import activation

Spelling = tuple[str, Mapping[str, float]]


def _spelled(operation: str, *calls: Any, **attributes: float) -> dict[Any, Spelling]:
    return dict.fromkeys(calls, (operation, attributes))


_NAMED_ALIKE = ("Abs", "Erf", "Exp", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh", "Add", "Sub", "Mul")

_SPELLINGS: Mapping[Any, Spelling] = (
    {call: (name, {}) for name in _NAMED_ALIKE for call in (getattr(torch, name.lower()), name.lower())}
    | {getattr(operator, name.lower()): (name, {}) for name in ("Abs", "Neg", "Add", "Sub", "Mul")}
    | _spelled("Div", operator.truediv, torch.div, torch.true_divide, "div")
    | _spelled("Pow", operator.pow, torch.pow, "pow")
    | _spelled("Max", torch.maximum, "maximum")
    | _spelled("Min", torch.minimum, "minimum")
    | _spelled("Where", torch.where)
    | _spelled("Greater", operator.gt, torch.gt, "gt")
    | _spelled("GreaterOrEqual", operator.ge, torch.ge, "ge")
    | _spelled("Less", operator.lt, torch.lt, "lt")
    | _spelled("LessOrEqual", operator.le, torch.le, "le")
    | _spelled("Sigmoid", F.sigmoid, torch.special.expit, nn.Sigmoid)
    | _spelled("Tanh", F.tanh, nn.Tanh)
    | _spelled("Relu", F.relu, nn.ReLU)
    | _spelled("Softplus", F.softplus, nn.Softplus)
    | _spelled("HardSigmoid", F.hardsigmoid, nn.Hardsigmoid, alpha=1 / 6, beta=0.5)
    | _spelled("Clip", F.relu6, nn.ReLU6, min=0.0, max=6.0)
    | _spelled("Clip", torch.clamp, torch.clip, "clamp", "clip")
)
"""Calls that activations are written with, and the ONNX operators that compute the same."""

_OPTIONS = {"inplace", "min", "max"}
"""Keywords that are understood; another one (`alpha` of `add`) leaves its call as it is."""

_MARK = "written"
"""Name in a node's `meta` of the activation that it is the last operation of."""


class RecogniseActivations(Editor):
    """`x * sigmoid(x) -> SiLU()(x)`, `x * relu6(x + 3) / 6 -> Hardswish()(x)`, in any spelling of theirs.

    They are told by what they compute: see `dianaq.inspection.elementwise`.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        nodes = {node.name: node for node in network.graph.nodes}
        uses: Counter[str] = Counter()
        for node in nodes.values():
            fx.node.map_arg((node.args, node.kwargs), lambda read: uses.update([read.name]))
        operations = [found for node in nodes.values() if (found := _operation(network, node)) is not None]
        for written in recognised(operations, uses):
            points = tuple(nodes[operation.name] for operation in reversed(written.operations))
            points[0].meta[_MARK] = written
            yield Point(points, f"{len(points)} operations write out {written.kind}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        last = point.nodes[0]
        written: Written = last.meta.pop(_MARK)
        # Not by its name: an application before this one may have replaced what the operations read.
        (source,) = {read for node in point.nodes for read in node.all_input_nodes if "shape" in read.meta} - {
            *point.nodes
        }
        replace(network, last, Chain((source,), (activation(written.kind, written.parameters),)))


def _operation(network: fx.GraphModule, node: fx.Node) -> Operation | None:
    """A call as an operation of ONNX; None if it is none that activations are written with."""
    if node.op not in ("call_function", "call_method", "call_module") or "shape" not in node.meta:
        return None
    name, attributes = _SPELLINGS.get(key_of(network, node), ("", {}))
    module = module_of(network, node)
    usual = not isinstance(module, nn.Softplus) or (module.beta, module.threshold) == (1.0, 20.0)
    bounds = {option: _operand(value) for option, value in node.kwargs.items() if option != "inplace"}
    inputs = [_operand(argument) for argument in node.args if not isinstance(argument, bool)]
    numbers = all(isinstance(value, float) for value in bounds.values())
    if len(inputs) not in ARITY.get(name, ()) or not usual or node.kwargs.keys() - _OPTIONS or not numbers:
        return None
    if any(value is ... for value in inputs) or not any(isinstance(value, str) for value in inputs):
        return None
    return Operation(node.name, name, tuple(inputs), node.name, {**attributes, **bounds})


def _operand(argument: Any) -> Any:
    """A node by its name, a number as it is, None; `...` for anything else."""
    if isinstance(argument, fx.Node):
        argument = argument.meta.get("value", argument)
    if isinstance(argument, fx.Node):
        return argument.name
    return float(argument) if isinstance(argument, int | float) else None if argument is None else ...
