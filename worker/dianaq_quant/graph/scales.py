"""Where a tensor's scale comes from."""

from __future__ import annotations

from torch import fx

from dianaq.errors import QuantisationError
from dianaq_quant.graph.surgery import layer_of, module_of
from dianaq_quant.modules.fake import FakeQuantiser
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
