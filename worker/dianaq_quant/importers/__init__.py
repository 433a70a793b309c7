"""Ways in: a file becomes a `torch.fx` graph in which every operation is a module.

From outside: `import_onnx`, and what it gives, `Network`.
"""

from dianaq_quant.importers.network import Network
from dianaq_quant.importers.onnx import import_onnx

__all__ = ["Network", "import_onnx"]
