"""Small operations on a graph in which every operation is a `call_module` node."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterator

from torch import Tensor, fx, nn

from dianaq.schemas.quantisers import Core


def module_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None for the input and the output."""
    if node.op != "call_module":
        return None
    assert isinstance(node.target, str)
    return network.get_submodule(node.target)


def calls(network: fx.GraphModule, *kinds: type[nn.Module]) -> Iterator[tuple[fx.Node, nn.Module]]:
    """Nodes that call a module of one of the given kinds, in execution order, with their modules."""
    for node in network.graph.nodes:
        module = module_of(network, node)
        if isinstance(module, kinds):
            yield node, module


def input_node(network: fx.GraphModule) -> fx.Node:
    """The placeholder: every network here has one input."""
    node: fx.Node = network.graph.find_nodes(op="placeholder")[0]
    return node


def output_node(network: fx.GraphModule) -> fx.Node:
    """The node whose value is the network's output."""
    sink = network.graph.output_node()
    source = sink.args[0]
    assert isinstance(source, fx.Node)
    return source


def only_user(node: fx.Node) -> fx.Node | None:
    """The node's user, if there is just one."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def layer_of(node: fx.Node) -> str:
    """The user's name of the layer that a node belongs to, or the node's own."""
    return str(node.meta.get("layer", node.name))


def core_of(node: fx.Node) -> Core:
    """The core that a linear layer was assigned to."""
    core: Core = node.meta.get("core", "digital")
    return core


UNUSABLE = frozenset({*keyword.kwlist, "self", *dir(fx.GraphModule(nn.Module(), fx.Graph()))})
"""What no submodule may be called: its call would be no Python, or would hide something of the graph module."""


def identifier(name: str) -> str:
    """A layer's name as a submodule's (`/net/net.0/Conv` gives `net_net_0_Conv`); a dot would nest modules."""
    cleaned = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "node"
    if cleaned in UNUSABLE:
        return f"{cleaned}_layer"
    return f"n{cleaned}" if cleaned[0].isdigit() else cleaned


def free_name(network: nn.Module, wanted: str) -> str:
    """`wanted` as an identifier, or `wanted_1`, `wanted_2`...: a submodule name that is not taken."""
    wanted = identifier(wanted)
    name, count = wanted, 0
    while hasattr(network, name):
        count += 1
        name = f"{wanted}_{count}"
    return name


def tied_nodes(network: fx.GraphModule) -> set[fx.Node]:
    """Nodes whose module holds a parameter or buffer that another node's module holds as well."""
    held = {node: _tensors(module) for node, module in calls(network, nn.Module)}
    owners = Counter(tensor for tensors in held.values() for tensor in tensors)
    return {node for node, tensors in held.items() if any(owners[tensor] > 1 for tensor in tensors)}


def _tensors(module: nn.Module) -> set[int]:
    """Identities of a module's own parameters and buffers."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return {id(tensor) for tensor in tensors}


def insert_after(network: fx.GraphModule, node: fx.Node, module: nn.Module, name: str) -> fx.Node:
    """Put a module on a node's output, for all its users; the new node keeps the layer's name."""
    users = list(node.users)
    target = free_name(network, name)
    network.add_submodule(target, module)
    with network.graph.inserting_after(node):
        new = network.graph.call_module(target, (node,))
    new.meta = dict(node.meta)
    for user in users:
        user.replace_input_with(node, new)
    return new


def insert_between(network: fx.GraphModule, node: fx.Node, user: fx.Node, module: nn.Module, name: str) -> fx.Node:
    """Put a module on the edge from a node to one of its users."""
    target = free_name(network, name)
    network.add_submodule(target, module)
    with network.graph.inserting_before(user):
        new = network.graph.call_module(target, (node,))
    new.meta = {"layer": name, "inserted": True}
    user.replace_input_with(node, new)
    return new


def bypass(network: fx.GraphModule, node: fx.Node) -> None:
    """Remove a node of one input: its users read what it read."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    network.graph.erase_node(node)


def set_module(network: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Let a node call another module, under the same name.

    Of a module of another class it is no longer known what the user called it (`meta["operation"]`).
    """
    assert isinstance(node.target, str)
    if type(network.get_submodule(node.target)) is not type(module):
        node.meta.pop("operation", None)
    network.set_submodule(node.target, module)


class Interpreter(fx.Interpreter):
    """Runs a graph node by node and lets a subclass see each value; values are freed after their last use."""

    def run_node(self, n: fx.Node) -> Tensor:
        value: Tensor = super().run_node(n)
        self.see(n, value)
        return value

    def see(self, node: fx.Node, value: Tensor) -> None:
        """Called with each node's value."""
        raise NotImplementedError
