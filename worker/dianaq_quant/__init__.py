"""The quantisation library: import, editors, training, integerisation, export.

Usable alone: `quantise` from a notebook, or `python -m dianaq_quant`. No HTTP, no Celery, no database.
From outside: `quantise`, `register_quantiser`, `Editor` with its `Point` and `Rejection` for one's own rewrites, and
`Operators` with `Chain` for one's own operators.
Names load on first use, and torch with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dianaq_quant.editors.canonicalise.traced_call import Chain
    from dianaq_quant.graph import Editor, Point, Rejection
    from dianaq_quant.importers import Operators
    from dianaq_quant.notebook import Quantised, quantise
    from dianaq_quant.quantisers import register_quantiser

__all__ = ["Chain", "Editor", "Operators", "Point", "Quantised", "Rejection", "quantise", "register_quantiser"]

_HOME = {
    "Chain": "editors.canonicalise.traced_call",
    "Operators": "importers",
    "Editor": "graph",
    "Point": "graph",
    "Rejection": "graph",
    "Quantised": "notebook",
    "quantise": "notebook",
    "register_quantiser": "quantisers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
