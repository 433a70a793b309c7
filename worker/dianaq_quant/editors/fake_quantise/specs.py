"""Which quantiser a layer gets: the recipe's default, unless a rule matches."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import fx, nn

from dianaq.errors import InvalidSpec
from dianaq.schemas.quantisers import QuantiserRule, Quantisers, QuantiserSpec
from dianaq_quant.graph.surgery import core_of, layer_of, module_of, output_node
from dianaq_quant.modules.fake import FakeConv2d
from dianaq_quant.modules.structure import Add, Ceiling, Conv2d


def check_rules(quantisers: Quantisers, network: fx.GraphModule) -> None:
    """Refuse a rule whose pattern matches nothing: it would be passed over in silence.

    Raises:
        InvalidSpec: names the rule, its pattern and the names that there are.
    """
    names = list(dict.fromkeys(layer_of(n) for n in network.graph.nodes if n.op in ("placeholder", "call_module")))
    for index, rule in enumerate(quantisers.rules):
        if not any(fnmatchcase(name, rule.layers) for name in names):
            raise InvalidSpec(
                f"recipe.quantisers.rules.{index} is for {rule.layers!r}, which matches no layer; "
                f"there are {', '.join(names)}",
                param=f"recipe.quantisers.rules.{index}.layers",
            )


def weight_spec(quantisers: Quantisers, network: fx.GraphModule, node: fx.Node) -> QuantiserSpec:
    """The quantiser of a layer's weights."""
    matching = [r.weights for r in quantisers.rules if r.weights is not None and _matches(r, network, node)]
    return matching[-1] if matching else quantisers.weights


def activation_spec(quantisers: Quantisers, network: fx.GraphModule, node: fx.Node) -> QuantiserSpec:
    """The quantiser of what a node gives."""
    matching = [r.activations for r in quantisers.rules if r.activations is not None and _matches(r, network, node)]
    return matching[-1] if matching else quantisers.activations


def _matches(rule: QuantiserRule, network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a rule is for a node, or for the layer whose output the node finishes (as its BatchNorm or ReLU)."""
    finished = _finished(network, node)
    return (
        any(fnmatchcase(layer_of(n), rule.layers) for n in finished)
        and (rule.type is None or any(rule.type in _types(network, n) for n in finished))
        and (rule.core is None or rule.core == core_of(finished[-1]))
    )


def _finished(network: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """The node, and those before it that are one operation of the chip with it; a layer or an addition comes last."""
    found = [node]
    while isinstance(module_of(network, node), nn.BatchNorm1d | nn.BatchNorm2d | nn.ReLU | Ceiling):
        node = node.all_input_nodes[0]
        found.append(node)
    return found


def _types(network: fx.GraphModule, node: fx.Node) -> set[str]:
    """The words by which a rule may call a node."""
    module = module_of(network, node)
    types = {"input"} if node.op == "placeholder" else set()
    if node is output_node(network):
        types.add("output")
    if isinstance(module, Conv2d | FakeConv2d):
        types |= {"conv", "depthwise"} if module.groups == module.in_channels > 1 else {"conv"}
    elif isinstance(module, nn.Linear):
        types.add("linear")
    elif isinstance(module, Add):
        types.add("add")
    elif isinstance(module, nn.ReLU | Ceiling):
        types.add("activation")
    return types
