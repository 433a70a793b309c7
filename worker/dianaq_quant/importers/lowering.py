"""Between what a file or a call says and the canonical form: `editors.lower`, at the end of both ways in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from dianaq.inspection.interface import Own
from dianaq_quant.editors import lower
from dianaq_quant.graph import Edit
from dianaq_quant.graph.surgery import input_node, layer_of, module_of
from dianaq_quant.importers.finish import edits_by_layer
from dianaq_quant.importers.network import free_name_of

KEPT = ("shape", "inserted")
"""What the later stages want to know of a node, beside its name."""


@dataclass(frozen=True)
class Lowered:
    """What was done, by the names of the layers; and of `Network` the other layouts of its ends."""

    edits: list[Edit]
    own: Own | None
    given: Own | None


def lowered(network: fx.GraphModule) -> Lowered:
    """Bring a network of raw modules into canonical ones, in place, as far as it can be done.

    Every node's `meta["shape"]` must be there.
    """
    edits = edits_by_layer(network, lower.EDITORS)
    own, given = (end.meta.pop("own", None) for end in (input_node(network), network.graph.output_node()))
    return Lowered(edits, own, given)


def assembled(network: fx.GraphModule) -> fx.GraphModule:
    """A network of modules without anything that its graph does not use, its modules named after their layers."""
    root, graph = nn.Module(), fx.Graph()
    new: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        if node.op == "placeholder":
            new[node] = graph.placeholder("input")
            new[node].meta = {"shape": node.meta["shape"]}
        elif node.op == "output":
            graph.output(new[node.all_input_nodes[0]])
        else:
            module = module_of(network, node)
            assert module is not None
            target = free_name_of(root, layer_of(node))
            root.add_module(target, module)
            new[node] = graph.call_module(target, tuple(new[source] for source in node.args))
            new[node].meta = {"layer": layer_of(node), **{key: node.meta[key] for key in KEPT if key in node.meta}}
    made = fx.GraphModule(root, graph)
    made.graph.lint()
    return made.eval()
