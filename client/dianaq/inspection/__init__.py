"""What is inside an uploaded file, found without executing any of it. Needs the `inspection` extra.

From outside: `inspect_model`, `inspect_dataset`, `check_fit`, `input_layout`, `node_names`, and the operators
that are supported. Names load on first use: `check_fit` and `input_layout` need neither numpy nor onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dianaq.inspection.dataset import inspect_dataset
    from dianaq.inspection.fit import InputLayout, check_fit, input_layout
    from dianaq.inspection.model import inspect_model
    from dianaq.inspection.naming import node_names
    from dianaq.inspection.operators import LINEAR_OPERATORS, SUPPORTED_OPERATORS

__all__ = [
    "LINEAR_OPERATORS",
    "SUPPORTED_OPERATORS",
    "InputLayout",
    "check_fit",
    "input_layout",
    "inspect_dataset",
    "inspect_model",
    "node_names",
]

_HOME = {
    "LINEAR_OPERATORS": "operators",
    "SUPPORTED_OPERATORS": "operators",
    "InputLayout": "fit",
    "check_fit": "fit",
    "input_layout": "fit",
    "inspect_dataset": "dataset",
    "inspect_model": "model",
    "node_names": "naming",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
