"""ONNX operators that installed packages bring to the import, known by name alone.

A package registers them in the entry-point group `dianaq.operators`: an entry point is called after the operator,
`domain.OpType` (`OpType` alone for one of ONNX itself), and leads to the package's `dianaq_quant.Operators`. Only names
are read here, so that an upload is inspected without running any of it.
"""

from __future__ import annotations

from importlib.metadata import entry_points

GROUP = "dianaq.operators"


def registered_operators() -> frozenset[str]:
    """The operators that installed packages bring, as `inspection.network.Node` names them."""
    return frozenset(entry.name.removeprefix("ai.onnx.") for entry in entry_points(group=GROUP))
