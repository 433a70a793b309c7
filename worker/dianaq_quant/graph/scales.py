"""Where a tensor's scale comes from."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from dianaq.errors import QuantisationError
from dianaq_quant.graph.surgery import calls, layer_of, module_of
from dianaq_quant.modules.quantiser import FakeQuantiser, Scale
from dianaq_quant.modules.structure import Flatten, GlobalAvgPool2d, MaxPool2d


def source_quantiser(network: fx.GraphModule, node: fx.Node, index: int = 0) -> FakeQuantiser:
    """The quantiser that fixes the scale of what a node reads as its input of that index.

    Pooling and flattening pass a scale on.

    Raises:
        QuantisationError: the value was never quantised; names the node.
    """
    source = node.args[index]
    while isinstance(source, fx.Node):
        module = module_of(network, source)
        if isinstance(module, FakeQuantiser):
            return module
        if not isinstance(module, MaxPool2d | Flatten | GlobalAvgPool2d):
            break
        source = source.args[0]
    raise QuantisationError(f"what {layer_of(node)} reads was never quantised", param=layer_of(node))


def linear_readers(network: fx.GraphModule, node: fx.Node) -> Iterator[fx.Node]:
    """What reads a node's value, flattened or not; of the network's input, in canonical form, linear layers."""
    for user in node.users:
        if isinstance(module_of(network, user), Flatten):
            yield from linear_readers(network, user)
        else:
            yield user


def scale_readers(network: fx.GraphModule, *kinds: type[nn.Module]) -> dict[Scale, list[fx.Node]]:
    """Which layers of the given kinds read a tensor of each scale."""
    readers: dict[Scale, list[fx.Node]] = {}
    for node, _ in calls(network, *kinds):
        readers.setdefault(source_quantiser(network, node).scale, []).append(node)
    return readers
