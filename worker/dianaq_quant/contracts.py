"""The compilers' contracts in a job: both written files are checked from disk, with the files beside them."""

from __future__ import annotations

from pathlib import Path

from dianaq.errors import VerificationError
from dianaq_quant.export.check import Checked, check_dory, check_htvm

NAMED = 3
"""Nodes named in a note; the report's `checks` has them all."""


def check_contracts(folder: Path) -> tuple[Checked, ...]:
    """Check `htvm/model.onnx` and `dory/model.onnx` of a bundle, golden files included.

    Raises:
        VerificationError: a file is not as its compiler reads it. A layer that the compiler does not take, however it
            is written, is no error: the findings say so.
    """
    found = (
        check_htvm(folder / "htvm" / "model.onnx", golden=True),
        check_dory(folder / "dory" / "model.onnx", golden=True),
    )
    for checked in found:
        for finding in checked.findings:
            if finding.severity == "rejected" and not finding.of_network:
                raise VerificationError(
                    f"{checked.dialect}/model.onnx breaks the rule {finding.rule} at {finding.node or 'the graph'}: "
                    f"{finding.message}; the rule: {finding.says}",
                    param=finding.node or None,
                )
    return found


def breaches(checked: Checked) -> list[str]:
    """One note per rule whose breach keeps the file from its compiler, or makes the chip compute something else."""
    notes = []
    rules = {f.rule: f for f in checked.failures}
    for rule, first in rules.items():
        nodes = list(dict.fromkeys(f.node or "the graph" for f in checked.failures if f.rule == rule))
        more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
        notes.append(
            f"{checked.dialect}/model.onnx is {_VERDICT[first.severity]} by rule {rule} ({first.says}) "
            f"at {', '.join(nodes[:NAMED])}{more}"
        )
    return notes


_VERDICT = {"rejected": "refused", "wrong": "taken and computed wrongly"}
