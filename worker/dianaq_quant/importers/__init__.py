"""Ways in: a file becomes a `torch.fx` graph in which every operation is a module.

From outside: `import_onnx`.
"""

from dianaq_quant.importers.onnx import import_onnx

__all__ = ["import_onnx"]
