"""Any module that `torch.fx` can trace to a graph of modules."""

from __future__ import annotations

import copy
import inspect
import keyword
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection.substitution import VALUED, final_refusal
from dianaq.inspection.unsupported import refuse
from dianaq_quant.editors.canonicalise import TRACED
from dianaq_quant.editors.canonicalise.remove_identities import ACTIVE
from dianaq_quant.editors.canonicalise.traced_call import Call
from dianaq_quant.graph.surgery import input_node, layer_of, module_of
from dianaq_quant.importers.finish import Wishes, edits_by_layer, finish
from dianaq_quant.importers.lowering import assembled, lowered
from dianaq_quant.importers.network import Network
from dianaq_quant.importers.own import Operators, ReadOwn, is_own
from dianaq_quant.importers.recording import record
from dianaq_quant.importers.unsupported import check_kind, check_modules, unsupported
from dianaq_quant.modules import structure
from dianaq_quant.modules.layout import rearrange
from dianaq_quant.modules.structure import AvgPool2d, Conv2d, GlobalAvgPool2d, MaxPool2d


def import_module(module: nn.Module, input_shape: tuple[int, ...], wishes: Wishes | None = None) -> Network:
    """Import a module in evaluation mode. The module itself is not changed; its parameters are copied.

    Modules, functions and methods may be mixed and reused: each call becomes a module of its own. Calls that share
    parameters go on sharing them, which a note tells. The result computes what the module computes, which is tried.

    Args:
        module: takes one tensor (N, *input_shape) and gives one; `torch.fx` must be able to trace it. float32.
        input_shape: shape of one sample.
        wishes: what is to be substituted, and the user's own operators and editors. The result computes what the
            module computes but for what these change.

    Raises:
        UnsupportedOperator: names the node and the operation, and what would work in its place.
        InvalidModel: the module cannot be traced, does not fit the input's shape, or has other parameters than float32.
    """
    wishes = wishes or Wishes()
    operators = wishes.all_operators()
    input_name = _input_name(module)
    _check_parameters(module)
    if not input_shape or any(isinstance(d, bool) or not isinstance(d, int) or d < 1 for d in input_shape):
        raise InvalidModel(
            f"input_shape {input_shape!r}; the positive sizes of one sample are accepted, as (3, 32, 32)"
        )
    try:
        whole = _Whole(copy.deepcopy(module).cpu().eval())
        graph = _Tracer(operators).trace(whole)
    except Exception as error:  # whatever the user's forward raises
        check_modules(module, operators)
        raise InvalidModel(
            f"torch.fx cannot trace {type(module).__name__}: {str(error).splitlines()[0] if str(error) else error!r}; "
            "a forward whose Python control flow does not depend on the tensors' values or shapes can be traced"
        ) from error
    _name_layers(graph, type(module).__name__)
    network = fx.GraphModule(_renamed(whole, graph), graph)
    check_kind(network, operators)
    record(network, input_shape)
    probe = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole(probe.clone())
    if edits := edits_by_layer(network, [ReadOwn(operators.readers)]):
        # Whoever reads an operator in a way of their own changes what is computed; the rest must stay as it was.
        record(network, input_shape)
        with torch.no_grad():
            expected = network(probe.clone())
    *exact, drop_softmax = TRACED
    edits += edits_by_layer(network, exact)
    with torch.no_grad():
        got = network(probe)
    own = edits_by_layer(network, wishes.editors)
    ends = {layer_of(node): node.all_input_nodes for node in network.graph.output_node().all_input_nodes}
    dropped = edits_by_layer(network, [drop_softmax])
    if dropped and wishes.task in VALUED:
        name = dropped[0].node  # the last operation: elsewhere it is refused
        raise UnsupportedOperator(
            final_refusal(name, "Softmax", wishes.task, layer_of(ends[name][0])),
            param=name,
        )
    edits += own + dropped
    _only_output(network, network.graph.output_node())
    with torch.no_grad():
        scores = network(probe)
    low = lowered(network)
    edits += low.edits
    network = _assembled(network)
    if not any(edit.note == ACTIVE for edit in edits):
        _check_function(got, expected)
        with torch.no_grad():
            result = network(probe if low.own is None else rearrange(probe, low.own.arrangement))
        _check_function(result, scores if low.given is None else rearrange(scores, low.given.arrangement))
    notes = [f"{edit.node}: {edit.note}" for edit in edits if edit.note and edit.applied and edit not in own]
    shape = input_node(network).meta["shape"]
    return finish(Network(network, input_name, shape, "output", notes, edits, own=low.own, given=low.given), wishes)


class _Whole(nn.Module):
    """The user's module as the only part of another: so it may be one that `torch.fx` does not look into."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.module(input)
        return result


class _Tracer(fx.Tracer):
    """Looks into every module but those of `torch.nn`, our own, and those that the user has a reader for."""

    def __init__(self, operators: Operators) -> None:
        super().__init__()
        self.operators = operators

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            is_own(self.operators, m)
            or type(m).__module__ == structure.__name__
            or super().is_leaf_module(m, module_qualified_name)
        )


def _input_name(module: nn.Module) -> str:
    """The name of the tensor that a module takes.

    Raises:
        InvalidModel: it takes none, or several.
    """
    kinds = inspect.Parameter
    parameters = inspect.signature(module.forward).parameters.values()
    positional = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    named = [*positional, *(p for p in parameters if p.kind is kinds.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is kinds.empty]
    takes_any = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
    if len(required) > 1 or not (positional or takes_any) or (required and required[0] != positional[0].name):
        raise InvalidModel(
            f"{type(module).__name__}.forward takes {', '.join(p.name for p in named) or 'nothing'}; "
            "a module of one input tensor is accepted (others need defaults)"
        )
    return positional[0].name if positional else "input"


def _check_parameters(module: nn.Module) -> None:
    """Raises `InvalidModel` for a parameter or buffer that the import does not understand."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise InvalidModel(f"{name} has no values yet; run the module once, or load its weights", param=name)
        if tensor.dtype != torch.float32 and (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
            raise InvalidModel(f"{name} is {tensor.dtype}; torch.float32 is accepted (module.float())", param=name)


def _renamed(whole: nn.Module, graph: fx.Graph) -> dict[str, Any]:
    """What the nodes of a graph call and read, by their targets, which are changed where they would be no Python.

    `nn.Sequential(OrderedDict(class=...))` has a submodule that no code can name.
    """
    found: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            *path, last = parts = str(node.target).split(".")
            owner = whole.get_submodule(".".join(path))
            node.target = ".".join(f"{part}_" * keyword.iskeyword(part) or part for part in parts)
            while node.target in found and found[node.target] is not getattr(owner, last):
                node.target += "_"
            found[node.target] = getattr(owner, last)
    return found


def _name_layers(graph: fx.Graph, whole: str) -> None:
    """Give every node the name of what it computes: the dotted name of its module, or fx's name of a function.

    Names are unique: the second call of `act` is `act_1`.
    """
    taken: set[str] = set()
    own = {_dotted(n, whole) for n in graph.nodes if n.op == "call_module"}
    for node in graph.nodes:
        called = node.op == "call_module"
        wanted = _dotted(node, whole) if called else node.name
        name, count = wanted, 0
        while name in taken or (name in own and (count or not called)):
            count += 1
            name = f"{wanted}_{count}"
        taken.add(name)
        node.meta["layer"] = name


def _dotted(node: fx.Node, whole: str) -> str:
    name = str(node.target).removeprefix("module")
    return name.removeprefix(".") or whole.lower()


def _assembled(network: fx.GraphModule) -> fx.GraphModule:
    """The canonical network without anything that its graph does not use.

    Raises:
        UnsupportedOperator: an operation has no counterpart among the canonical modules.
    """
    refuse(unsupported(network))
    for node in network.graph.nodes:
        if node.op == "output":
            _only_output(network, node)
        elif node.op != "placeholder":
            _check_ranks(network, node)
    return assembled(network)


def _only_output(network: fx.GraphModule, node: fx.Node) -> None:
    """Raises `InvalidModel` if the module gives anything but one tensor of the samples."""
    result = node.args[0]
    if not isinstance(result, fx.Node) or "shape" not in result.meta:
        parts = len(result) if isinstance(result, tuple | list | dict) else 0
        what = f"{type(result).__name__} of {parts}" if parts else f"{result!r}, no tensor of the samples"
        raise InvalidModel(f"the module returns a {what}; one tensor is accepted", param="output")


def _check_ranks(network: fx.GraphModule, node: fx.Node) -> None:
    """Raises `UnsupportedOperator` unless the module that a node calls takes inputs of these ranks."""
    call, module = Call(network, node), module_of(network, node)
    assert module is not None, "the others were refused"
    for source, ranks in zip(node.args, _ranks(module), strict=False):
        if len(call.shape(source)) not in ranks:
            wanted = " or ".join({1: "a vector", 3: "a map (C, H, W)"}[rank] for rank in ranks)
            hint = "; flatten it first" if ranks == (1,) else ""
            raise call.refuse(f"its input must be {wanted} per sample, its shape is {call.shape(source)}{hint}")


def _ranks(module: nn.Module) -> Iterator[tuple[int, ...]]:
    """The ranks that a canonical module takes, per input."""
    if isinstance(module, nn.Linear | nn.BatchNorm1d):
        yield (1,)
    elif isinstance(module, Conv2d | nn.BatchNorm2d | MaxPool2d | AvgPool2d | GlobalAvgPool2d):
        yield (3,)
    else:
        yield from ((1, 3), (1, 3))


def _check_function(got: Tensor, expected: Tensor) -> None:
    """Raises `InvalidModel` if the imported network does not compute what the module computes.

    `torch.fx` does not see everything: not that `x += y` writes into x, and no hooks of the modules of `torch.nn`.
    """
    error, size = (got - expected).abs().max(), expected.abs().max()
    if not error <= 1e-3 * size + 1e-6:
        raise InvalidModel(
            f"torch.fx traces something else than the module computes (they differ by {float(error):.3g}); "
            "without operations in place (x += y, where x is read again) and without hooks it can be traced"
        )
