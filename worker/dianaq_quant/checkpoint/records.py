"""Networks as JSON data and a list of tensors, and back; what was one object stays one.

Modules and tensors are written once, under a number, however often they are used: quantisers that share a `Scale`,
layers that share a weight. Their order is kept, and with it that of a network's parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from dianaq.errors import QuantisationError
from dianaq_quant.checkpoint.kinds import build, describe

META = ("layer", "shape", "core", "scale", "inserted")
"""What editors note on nodes: the user's name of the layer, the value's shape without the batch, the core, the scale
of an exact value, whether an editor put the layer there. Whatever else a tracer notes is not kept."""

_OPERATIONS = ("placeholder", "call_module", "output")

_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)
"""Names of nodes and modules become Python source in a `GraphModule`: nothing else may be in them."""


class _Writer:
    """The tables of modules and tensors as they grow."""

    def __init__(self) -> None:
        self.modules: list[dict[str, Any]] = []
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        """By `id`: the networks outlive the writer."""

    def put(self, tensor: Tensor) -> int:
        """The number of a tensor."""
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)
        return self._numbers[id(tensor)]

    def module(self, module: nn.Module) -> int:
        """The number of a module."""
        if id(module) not in self._numbers:
            record = describe(module, self.put) | {
                "parameters": self._named(module._parameters),
                "buffers": self._named(module._buffers),
                "children": self.children(module),
            }
            self._numbers[id(module)] = len(self.modules)
            self.modules.append(record)
        return self._numbers[id(module)]

    def children(self, module: nn.Module) -> dict[str, int]:
        """The numbers of a module's children by their names."""
        return {name: self.module(child) for name, child in module._modules.items() if child is not None}

    def _named(self, tensors: Mapping[str, Tensor | None]) -> dict[str, int | None]:
        return {name: None if tensor is None else self.put(tensor) for name, tensor in tensors.items()}


def write(networks: Mapping[str, fx.GraphModule]) -> tuple[dict[str, Any], list[Tensor]]:
    """Networks by name as JSON data, and the tensors that it numbers.

    Raises:
        QuantisationError: a module or a node that a checkpoint cannot hold.
    """
    writer = _Writer()
    graphs = {
        name: {"children": writer.children(network), "nodes": [_node(node) for node in network.graph.nodes]}
        for name, network in networks.items()
    }
    flags = [{"parameter": isinstance(t, nn.Parameter), "requires_grad": t.requires_grad} for t in writer.tensors]
    # A copy leaves behind the larger storage that a tensor may be a view of; strides stay, kernels are chosen by them.
    return {"graphs": graphs, "modules": writer.modules, "tensors": flags}, [
        t.detach().clone().cpu() for t in writer.tensors
    ]


def _node(node: fx.Node) -> dict[str, Any]:
    inputs = [argument.name for argument in node.args if isinstance(argument, fx.Node)]
    if node.op not in _OPERATIONS or len(inputs) != len(node.args) or node.kwargs:
        raise QuantisationError(
            f"{node.name}: a checkpoint holds calls of modules on tensors, not {node.format_node()}", param=node.name
        )
    meta = {key: node.meta[key] for key in META if key in node.meta}
    return {"op": node.op, "name": node.name, "target": node.target, "inputs": inputs, "meta": meta}


class _Reader:
    """The tables of modules and tensors, made again."""

    def __init__(self, description: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        self.tensors: list[Tensor] = [
            nn.Parameter(tensor, requires_grad=flags["requires_grad"]) if flags["parameter"] else tensor
            for tensor, flags in zip(tensors, description["tensors"], strict=True)
        ]
        self.modules: list[nn.Module] = []
        for record in description["modules"]:
            self.modules.append(self._module(record))

    def _module(self, record: Mapping[str, Any]) -> nn.Module:
        module = build(record, self.tensors)
        # Not only filled but replaced: a module's tensors and children are those of the record, in its order.
        module._parameters = self._named(record["parameters"])
        module._buffers = self._named(record["buffers"])
        module._modules = self.children(record["children"])
        return module

    def children(self, numbers: Mapping[str, int]) -> dict[str, nn.Module | None]:
        """Children by their names."""
        return {name: self.modules[number] for name, number in numbers.items()}

    def _named(self, numbers: Mapping[str, int | None]) -> dict[str, Any]:
        return {name: None if number is None else self.tensors[number] for name, number in numbers.items()}


def read(description: Mapping[str, Any], tensors: Sequence[Tensor]) -> dict[str, fx.GraphModule]:
    """The networks that `write` was given, in evaluation mode; their observers are new.

    Raises:
        InvalidModel: a class of modules or a quantiser's function that this process does not know.
        ValueError, LookupError, TypeError, AttributeError, RuntimeError: the data are not what `write` gives.
    """
    reader = _Reader(description, tensors)
    networks = {}
    for name, record in description["graphs"].items():
        root = nn.Module()
        root._modules = reader.children(record["children"])
        network = fx.GraphModule(root, _graph(record["nodes"]))
        network._modules = root._modules  # in its order, and not the graph's
        network.graph.lint()
        networks[name] = network.eval()
    return networks


def _graph(records: Sequence[Mapping[str, Any]]) -> fx.Graph:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for record in records:
        name, target = record["name"], record["target"]
        if not _NAME.fullmatch(name) or not _NAME.fullmatch(target) or record["op"] not in _OPERATIONS:
            raise ValueError(f"no node is called {name!r}, {target!r}, {record['op']!r}")
        inputs = tuple(nodes[source] for source in record["inputs"])
        node = graph.create_node(record["op"], target, inputs, name=name)
        if node.name != name:
            raise ValueError(f"{name!r} is no free name of a node")
        node.meta = {key: tuple(value) if key == "shape" else value for key, value in record["meta"].items()}
        nodes[name] = node
    return graph
