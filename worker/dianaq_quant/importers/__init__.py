"""Ways in: a file or a module becomes a `torch.fx` graph in which every operation is a module.

From outside: `import_network` for a job's, else `import_onnx`, `import_module`, `load_weights`; what they are told,
`Wishes` with one's own `Operators`; and what they give, `Network`.
"""

from dianaq_quant.importers.finish import Wishes
from dianaq_quant.importers.network import Network
from dianaq_quant.importers.onnx import import_onnx
from dianaq_quant.importers.own import Operators
from dianaq_quant.importers.source import graph_interface, import_network, interface_of
from dianaq_quant.importers.trace import import_module
from dianaq_quant.importers.weights import load_weights

__all__ = [
    "Network",
    "Operators",
    "Wishes",
    "graph_interface",
    "import_module",
    "import_network",
    "import_onnx",
    "interface_of",
    "load_weights",
]
