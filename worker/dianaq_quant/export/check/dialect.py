"""Which dialect a file is of, and the checks of each from the file to its folder."""

from __future__ import annotations

import os
from pathlib import Path

from dianaq_quant.export.check import dory, golden_dory, golden_htvm, htvm
from dianaq_quant.export.check.findings import Checked, Dialect, Log
from dianaq_quant.export.check.graph import Graph, read_graph
from dianaq_quant.targets.diana.rules import Rule

NEITHER = Rule("file.dialect", "note", "a file for HTVM requantises with Floor, one for DORY has its attributes too")

_ATTRIBUTES = frozenset({"weight_bits", "bias_bits", "out_bits", "add_bits"})
"""Attributes that only DORY's front end reads."""


def check_file(path: str | os.PathLike[str], dialect: Dialect | None = None, *, golden: bool | None = None) -> Checked:
    """Check a file by the rules of its dialect.

    Args:
        dialect: None to tell it from the file; a file of neither has one finding, a note.
        golden: whether the folder must hold the golden files (and DORY's JSON). None: it must if it looks like a
            bundle's, that is if it holds one of them, or the file is `htvm/model.onnx` or `dory/model.onnx`.

    Raises:
        InvalidModel: the file cannot be read as ONNX, or its constants are damaged.
    """
    graph = read_graph(Path(path))
    found = dialect_of(graph) if dialect is None else dialect
    log = Log()
    if not graph.nodes:
        log.add(NEITHER, "", "the graph has no nodes")
    elif found == "htvm":
        log = htvm.check_graph(graph)
        if _has_golden(graph.path, "htvm", golden, golden_htvm.NAMES):
            golden_htvm.check_golden(graph, log)
    elif found == "dory":
        reading = dory.check_graph(graph)
        log = reading.log
        names = (golden_dory.CONFIGURATION_NAME, "input.txt", "out_layer*.txt")
        if graph.shape_error is None and _has_golden(graph.path, "dory", golden, names):
            golden_dory.check_golden(reading)
    else:
        log.add(NEITHER, "", "nothing is requantised in it: it is a network to quantise, not a quantised one")
    return Checked(str(path), found if graph.nodes else None, tuple(log.findings), tuple(log.layers))


def check_htvm(path: str | os.PathLike[str], *, golden: bool | None = None) -> Checked:
    """Check a file by the rules of HTVM, whatever it looks like; see `check_file`."""
    return check_file(path, "htvm", golden=golden)


def check_dory(path: str | os.PathLike[str], *, golden: bool | None = None) -> Checked:
    """Check a file by the rules of DORY, whatever it looks like; see `check_file`."""
    return check_file(path, "dory", golden=golden)


def dialect_of(graph: Graph) -> Dialect | None:
    """DORY: some attribute that only its front end reads, or tensors named by numbers in a network that rounds.
    HTVM: another network that rounds. Neither: a network without any rounding."""
    if any(_ATTRIBUTES & node.attributes.keys() for node in graph.nodes):
        return "dory"
    if not any(node.op in ("Floor", "Round") for node in graph.nodes):
        return None
    # Old exporters number the tensors of float networks too, which is why rounding is asked for first.
    numbered = sum(node.output.isdecimal() for node in graph.nodes)
    return "dory" if "0" in graph.inputs or 2 * numbered > len(graph.nodes) else "htvm"


def _has_golden(path: Path, dialect: Dialect, wanted: bool | None, names: tuple[str, ...]) -> bool:
    if wanted is not None:
        return wanted
    if path.name == "model.onnx" and path.absolute().parent.name == dialect:
        return True
    return any(next(path.parent.glob(name), None) is not None for name in names)
