"""The operations of a traced network that no core computes, by the table that ONNX files are refused by."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.inspection.network import Node
from dianaq.inspection.refusals import GATE, refusal_of_call
from dianaq.inspection.substitution import GATES
from dianaq.inspection.unsupported import Unsupported, refuse, written_out
from dianaq_quant.editors.canonicalise.traced_call import key_of, operation
from dianaq_quant.graph.surgery import layer_of, module_of
from dianaq_quant.importers.network import CANONICAL
from dianaq_quant.importers.own import Operators, is_own
from dianaq_quant.importers.raw import RAW, raw_refusal
from dianaq_quant.modules.activations import KINDS

_AS_ONNX = (
    dict.fromkeys(("matmul", "bmm", "mm"), "MatMul")
    | dict.fromkeys(("permute", "transpose", "t"), "Transpose")
    | dict.fromkeys(("view", "reshape", "flatten"), "Reshape")
    | dict.fromkeys(("pow", "square"), "Pow")
    | dict.fromkeys(("mean", "var"), "ReduceMean")
    | {"einsum": "Einsum", "softmax": "Softmax", "dropout": "Dropout", "sqrt": "Sqrt", "rsqrt": "Sqrt"}
    | {"add": "Add", "sub": "Sub", "mul": "Mul", "truediv": "Div", "div": "Div"}
)
"""Operations that attention and normalisations are written with, and the ONNX operators that compute the same."""


def check_kind(network: fx.GraphModule, operators: Operators) -> None:
    """Refuse a traced network for what kind of network it is, before anything is known of its values.

    Args:
        operators: what is read by them is not refused.

    Raises:
        UnsupportedOperator: names the layer, and what would work.
    """
    written = _written_out(network)
    found = []
    for node in network.graph.nodes:
        if node.op in ("placeholder", "output", "get_attr") or key_of(network, node) in operators.readers:
            continue
        what = operation(network, node)
        one = written.get(node) or Unsupported(layer_of(node), what, refusal_of_call(what))
        found += [one] if one.refusal.whole else []
    refuse(found)


def check_modules(module: nn.Module, operators: Operators) -> None:
    """Refuse a module that cannot be traced for what its parts are; raises as `check_kind`."""
    refuse(
        Unsupported(name or "the module", type(part).__name__, refusal)
        for name, part in module.named_modules()
        if not is_own(operators, part) and (refusal := refusal_of_call(type(part).__name__)).whole
    )


def unsupported(network: fx.GraphModule) -> Iterator[Unsupported]:
    """What is left of a traced network's calls that no core computes, and that no substitution replaces."""
    gated = {gate for node in network.graph.nodes if _name(network, node) == "mul" for gate in _gates(network, node)}
    refused: set[fx.Node] = set()
    for node in network.graph.nodes:
        module = module_of(network, node)
        if node.op in ("placeholder", "output", "get_attr") or gated & {*node.all_input_nodes}:
            continue
        what = operation(network, node)
        if isinstance(module, RAW):
            yield Unsupported(layer_of(node), what, raw_refusal(node, module))
        elif node in gated:
            yield Unsupported(layer_of(node), what, GATE)
        elif module is None or type(module) not in CANONICAL | KINDS.keys():
            # One of several results is named by what gives them.
            if what not in ("getitem", "getattr") or not refused & {*node.all_input_nodes}:
                yield Unsupported(layer_of(node), what, refusal_of_call(what))
            refused.add(node)


def _gates(network: fx.GraphModule, node: fx.Node) -> Iterator[fx.Node]:
    for source in node.all_input_nodes:
        module = module_of(network, source)
        if module is not None and KINDS.get(type(module), "") in GATES:
            yield source


def _name(network: fx.GraphModule, node: fx.Node) -> str:
    return operation(network, node).strip(".()").rstrip("_").lower()


def _written_out(network: fx.GraphModule) -> dict[fx.Node, Unsupported]:
    """Attention and normalisations that a network writes out."""
    nodes = {node.name: node for node in network.graph.nodes if node.op not in ("output", "get_attr")}
    listed = [
        Node(
            name,
            _AS_ONNX.get(_name(network, node), operation(network, node)),
            tuple(source.name for source in node.all_input_nodes),
            (name,),
            {},
        )
        for name, node in nodes.items()
    ]
    found = written_out(listed, nodes.keys())
    return {
        nodes[name]: Unsupported(layer_of(nodes[name]), one.what, one.refusal)
        for name, one in found.items()
        if one is not None
    }
