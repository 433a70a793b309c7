"""One call of a traced graph, and the base of the editors that replace calls by modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx, nn

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import free_name, layer_of, module_of

Shape = tuple[int, ...]


def operation(network: fx.GraphModule, node: fx.Node) -> str:
    """What a node computes, as errors and the report name it: `Conv2d`, `relu`, `.view()`.

    A module that an editor put in place of a call goes by the name of that call.
    """
    if "operation" in node.meta:
        return str(node.meta["operation"])
    if node.op == "call_module":
        return type(module_of(network, node)).__name__
    if node.op == "call_method":
        return f".{node.target}()"
    if node.op == "call_function":
        # `torch.nn.functional` chooses between two functions behind one anonymous one (`max_pool2d`): fx names those.
        name = str(getattr(node.target, "__name__", node.target))
        return name if name.isidentifier() and name != "fn" else node.name.rstrip("_0123456789")
    return f"the tensor {node.target}" if node.op == "get_attr" else node.op


def key_of(network: fx.GraphModule, node: fx.Node) -> Any:
    """What an editor's table is asked for: a function, a method's name, or a module's class."""
    return type(module_of(network, node)) if node.op == "call_module" else node.target


@dataclass(frozen=True)
class Call:
    """A node of a traced graph whose shapes were recorded (`importers.recording`)."""

    network: fx.GraphModule
    node: fx.Node

    @property
    def module(self) -> Any:
        """The module that the node calls; None for functions and methods."""
        return module_of(self.network, self.node)

    def describe(self) -> str:
        """The node as errors name it."""
        return f"node {layer_of(self.node)!r} ({operation(self.network, self.node)})"

    def refuse(self, why: str) -> UnsupportedOperator:
        """An error that names the node, its operation, and why."""
        return UnsupportedOperator(f"{self.describe()}: {why}", param=layer_of(self.node))

    def shape(self, value: object) -> Shape:
        """The shape per sample of what the call reads.

        Raises:
            UnsupportedOperator: it reads a number or a constant where a tensor of the samples must be.
        """
        if not isinstance(value, fx.Node) or "shape" not in value.meta:
            what = operation(self.network, value) if isinstance(value, fx.Node) else repr(value)
            raise self.refuse(f"it reads {what}, which does not depend on the network's input")
        shape: Shape = value.meta["shape"]
        return shape

    def map_shape(self, value: object) -> tuple[int, int]:
        """Height and width of what the call reads, which must be a map (C, H, W) per sample."""
        shape = self.shape(value)
        if len(shape) != 3:
            raise self.refuse(f"its input must be a map (C, H, W) per sample, its shape is {shape}")
        return shape[1], shape[2]

    def number(self, value: object, name: str) -> float:
        """A plain number given as an argument."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(f"{name} must be a number that is known before the network runs, not {value!r}")
        return float(value)

    def pair(self, value: object, name: str) -> tuple[int, int]:
        """An int or one or two ints: height and width."""
        values = (value, value) if isinstance(value, int) else value
        if isinstance(values, tuple | list) and len(values) == 1:
            values = (values[0], values[0])
        if not isinstance(values, tuple | list) or len(values) != 2 or not all(isinstance(v, int) for v in values):
            raise self.refuse(f"{name} must be one or two integers that are known before the network runs, not {value}")
        return int(values[0]), int(values[1])


@dataclass(frozen=True)
class Chain:
    """What replaces a call: modules one after the other, the first of which reads the sources; none is the identity.

    `note` tells what the user may want to know, if anything.
    """

    sources: tuple[fx.Node, ...]
    modules: tuple[nn.Module, ...] = ()
    note: str = ""


Reader = Callable[..., Chain]
"""Takes the `Call`, then the arguments as the replaced function names them; for a module, what it is called with."""


class CallEditor(Editor):
    """`f(x, ...) -> module(x)` for the functions, methods and module classes of a table.

    The readers run in the finder too, so that a refusal leaves the network as it was.
    """

    readers: ClassVar[Mapping[Any, Reader]]

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            called = node.op in ("call_function", "call_method", "call_module")
            if called and key_of(network, node) in self.readers and self.takes(network, node):
                yield Point((node,), self._read(network, node).note)

    def takes(self, network: fx.GraphModule, node: fx.Node) -> bool:
        """Whether a node of the table is read at all; a reader may refuse it."""
        return True

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        # Read again: applications before this one have replaced what the node reads.
        replace(network, node, self._read(network, node))

    def _read(self, network: fx.GraphModule, node: fx.Node) -> Chain:
        return self.readers[key_of(network, node)](Call(network, node), *node.args, **node.kwargs)


def replace(network: fx.GraphModule, node: fx.Node, chain: Chain) -> None:
    """Let a chain of modules compute what a node computes; the new nodes keep the layer's name."""
    inputs, call = chain.sources, Call(network, node)
    shapes = [call.shape(source) for source in inputs]
    for module in chain.modules:
        target = free_name(network, layer_of(node))
        network.add_submodule(target, module.eval())
        with network.graph.inserting_before(node):
            new = network.graph.call_module(target, inputs)
        with torch.no_grad():
            shapes = [tuple(module(*(torch.zeros(1, *shape) for shape in shapes)).shape[1:])]
        new.meta = {"layer": layer_of(node), "operation": operation(network, node), "shape": shapes[0]}
        inputs = (new,)
    (result,) = inputs
    if tuple(node.meta["shape"]) != shapes[0]:
        raise InvalidModel(
            f"{call.describe()} gives {node.meta['shape']} per sample, its modules give {shapes[0]}",
            param=layer_of(node),
        )
    node.replace_all_uses_with(result)
    network.graph.erase_node(node)
