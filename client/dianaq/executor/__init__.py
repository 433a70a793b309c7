"""Exported networks run in numpy, in integers: no floating point between their ends, no torch, no onnxruntime.

From outside: `load_model`, `read_model`, `IntegerModel`, `Execution`; `read_input`; `open_source`, `compare_models`.
Needs the `inspection` extra (numpy, onnx); importing this package without it raises `MissingExtra`.
"""

from __future__ import annotations

from dianaq.errors import MissingExtra

try:
    from dianaq.executor.compare import Comparison, compare_models
    from dianaq.executor.files import read_input
    from dianaq.executor.model import Execution, IntegerModel, load_model, read_model
    from dianaq.executor.source import Source, open_source
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("numpy", "onnx", "google"):
        raise
    raise MissingExtra(
        f'running an exported network needs {error.name}, which is not installed: pip install "dianaq[inspection]"'
    ) from None

__all__ = [
    "Comparison",
    "Execution",
    "IntegerModel",
    "Source",
    "compare_models",
    "load_model",
    "open_source",
    "read_input",
    "read_model",
]
