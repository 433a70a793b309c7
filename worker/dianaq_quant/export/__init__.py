"""The integer network as files: one ONNX dialect per compiler, with golden vectors.

From outside: `export_htvm`, `export_dory`, `write_golden`; and `check`, which reads such files and knows nothing of
their writers. The writers load on first use, and torch with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dianaq_quant.export.dory import export_dory
    from dianaq_quant.export.golden import write_golden
    from dianaq_quant.export.htvm import export_htvm

__all__ = ["export_dory", "export_htvm", "write_golden"]

_HOME = {"export_dory": "dory", "export_htvm": "htvm", "write_golden": "golden"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
