"""What is inside an uploaded file, found without executing any of it. Needs the `inspection` extra.

From outside: `inspect_upload`, which is `inspect_model` or `inspect_weights`; `inspect_dataset`, `check_fit`,
`check_substitution`, `input_layout`, `node_names`, `file_format`, and the operators that are supported. Names load on
first use: `check_fit`, `check_substitution`, `input_layout`, `inspect_weights` and `file_format` need neither numpy nor
onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dianaq.inspection.dataset import inspect_dataset
    from dianaq.inspection.fit import check_fit, check_interface, input_layout
    from dianaq.inspection.formats import file_format
    from dianaq.inspection.model import inspect_model
    from dianaq.inspection.naming import node_names
    from dianaq.inspection.operators import LINEAR_OPERATORS, SUPPORTED_OPERATORS
    from dianaq.inspection.substitution import check_substitution
    from dianaq.inspection.upload import inspect_upload
    from dianaq.inspection.weights import inspect_weights

__all__ = [
    "LINEAR_OPERATORS",
    "SUPPORTED_OPERATORS",
    "check_fit",
    "check_interface",
    "check_substitution",
    "file_format",
    "input_layout",
    "inspect_dataset",
    "inspect_model",
    "inspect_upload",
    "inspect_weights",
    "node_names",
]

_HOME = {
    "LINEAR_OPERATORS": "operators",
    "SUPPORTED_OPERATORS": "operators",
    "check_fit": "fit",
    "check_interface": "fit",
    "check_substitution": "substitution",
    "file_format": "formats",
    "input_layout": "fit",
    "inspect_dataset": "dataset",
    "inspect_model": "model",
    "inspect_upload": "upload",
    "inspect_weights": "weights",
    "node_names": "naming",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
