"""Ways in: a file or a module becomes a `torch.fx` graph in which every operation is a module.

From outside: `import_onnx`, `import_module`, `load_weights`, and what they give, `Network`.
"""

from dianaq_quant.importers.network import Network
from dianaq_quant.importers.onnx import import_onnx
from dianaq_quant.importers.trace import import_module
from dianaq_quant.importers.weights import load_weights

__all__ = ["Network", "import_module", "import_onnx", "load_weights"]
