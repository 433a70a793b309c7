"""`dianaq inspect FILE`: what the compilers would make of a file, or what a network to quantise holds.

Of a network also every node with the tensor that it computes, between which a part can be cut.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dianaq.cli.tables import shape, size, table
from dianaq.schemas.spec import NetworkPart

if TYPE_CHECKING:
    from dianaq.inspection.tensors import ListedNode
    from dianaq.schemas.resources import ModelInfo, WeightsInfo
    from dianaq_quant.export.check import Checked, CheckedLayer


LISTED = 200
"""Rows of the table for people: more than ResNet-50 has nodes."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `inspect` to the command line.

    Raises:
        ModuleNotFoundError: onnx is not installed; the command line then says what to install.
    """
    if find_spec("onnx") is None:
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
    parser = subparsers.add_parser(
        "inspect",
        help="check an exported file by its compiler's rules, or look into a network to quantise",
        description="Check a file for HTVM or DORY by every rule of its compiler: exit status 1 if the compiler would "
        "refuse it, or the chip compute something else. Of any other network or weights, say what it holds; of a "
        "network also the tensors between which --from and --to cut a part: exit status 1 if it is not taken whole.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="ONNX, or weights")
    parser.add_argument("--dialect", choices=("htvm", "dory"), help="the compiler (default: told from the file)")
    parser.add_argument(
        "--golden",
        action=argparse.BooleanOptionalAction,
        help="check the golden files beside it too (default: if it lies in the folder of a bundle)",
    )
    parser.add_argument("--from", dest="from_", metavar="TENSOR", help="look at the part of a network behind it")
    parser.add_argument("--to", metavar="TENSOR", help="look at the part of a network before it")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inspect a file: 1 if it has a finding of severity `rejected` or `wrong`, or is no network that is taken as a
    whole; otherwise 0.

    Raises:
        InvalidModel: it cannot be read, or is neither an exported file nor a network that could be quantised in part.
        InvalidSpec: the network has no such part.
    """
    # numpy and onnx take a while to import, and `dianaq --help` should not wait for them.
    from dianaq.inspection import file_format, inspect_upload
    from dianaq.inspection.external import self_contained
    from dianaq.inspection.model import parse_model
    from dianaq.inspection.tensors import survey
    from dianaq_quant.export.check import check_file

    cut = args.from_ is not None or args.to is not None
    part = NetworkPart.model_validate({"from": args.from_, "to": args.to}) if cut else None
    if part is None and file_format(args.file) == "onnx":
        checked = check_file(args.file, args.dialect, golden=args.golden)
        if checked.dialect is not None:
            print(json.dumps(checked.as_json(), indent=2) if args.json else _report(checked))
            return 1 if checked.failures else 0
    with self_contained(args.file) as file:
        info = inspect_upload(file, part=part)
        nodes = survey(parse_model(file, part)).listing() if info.format == "onnx" else []
    if args.json:
        found: dict[str, Any] = {"file": str(args.file), "dialect": None, "holds": info.model_dump(mode="json")}
        if info.format == "onnx":
            found["nodes"] = [asdict(node) for node in nodes]
        print(json.dumps(found, indent=2))
    else:
        print(_summary(args.file, info, part))
        if nodes:
            print(f"\n{_listing(nodes)}")
    return 1 if info.format == "onnx" and info.refusal is not None else 0


def _report(checked: Checked) -> str:
    """The tables of layers and of findings, and the verdict."""
    parts = []
    if checked.layers:
        header = ("layer", "kind", "core", "in", "out", "kernel", "stride", "range", "shift", "placement")
        parts.append(table(header, [_row(layer) for layer in checked.layers]))
    if checked.findings:
        rows = [(f.severity, f.rule, f.node or "-", f.message) for f in checked.findings]
        parts.append(table(("finding", "rule", "at", "what"), rows))
    return "\n\n".join([*parts, _verdict(checked)])


def _row(layer: CheckedLayer) -> tuple[str, ...]:
    geometry = layer.geometry
    return (
        layer.name,
        geometry.called,
        geometry.core,
        shape((geometry.c_in, *geometry.in_size)),
        shape((geometry.c_out, *geometry.out_size)),
        shape(geometry.kernel),
        shape(geometry.strides),
        "-" if geometry.clip is None else f"{geometry.clip[0]}..{geometry.clip[1]}",
        "-" if geometry.shift is None else str(geometry.shift),
        "; ".join(layer.reasons) or "offloaded",
    )


def _verdict(checked: Checked) -> str:
    computing = [layer for layer in checked.layers if layer.geometry.kind != "pool"]
    offloaded = sum(layer.offloaded for layer in computing)
    failures = {"rejected": "refused", "wrong": "computed wrongly"}
    counts = [
        f"{count} breach{'es' * (count > 1)} by which it is {what}"
        for severity, what in failures.items()
        if (count := sum(f.severity == severity for f in checked.failures))
    ]
    where = "as the file says on Diana_SoC" if checked.dialect == "dory" else "on the accelerators"
    return (
        f"{checked.path}: for {str(checked.dialect).upper()}; {offloaded} of {len(computing)} layers (pools apart) run "
        f"{where}; {', '.join(counts) or 'it keeps every rule'}"
    )


def _verdict_on(info: ModelInfo, part: NetworkPart | None) -> str:
    if info.refusal is not None:
        return f"a float network that `dianaq quantise` does not take as a whole: {info.refusal.detail}"
    what = "a float network" if part is None else f"a float network, {part} of which"
    which = "that `dianaq quantise` takes" if part is None else "`dianaq quantise` takes"
    return f"{what} {which}, in neither compiler's dialect"


def _listing(nodes: list[ListedNode]) -> str:
    """The table of nodes; of long ones the beginning and the end, where networks are cut."""
    rows = [(n.name, n.operator, n.output, "?" if n.shape is None else _dims(n.shape)) for n in nodes]
    left_out = len(rows) - LISTED
    if left_out > 0:
        half = LISTED // 2
        rows[half:-half] = [(f"({left_out} more: --json)", "", "", "")]
    return table(("node", "operator", "output", "shape"), rows)


def _dims(dims: tuple[int | None, ...]) -> str:
    """A shape with its batch left out."""
    return "x".join("?" if d is None else str(d) for d in dims[1:]) or "-"


def _summary(path: Path, info: ModelInfo | WeightsInfo, part: NetworkPart | None) -> str:
    if info.format != "onnx":
        return f"{path}: weights of a zoo network ({info.format}), {info.tensors:,} tensors, {size(info.bytes)}"
    operators = ", ".join(f"{count} {name}" for name, count in info.operators.items())
    return "\n".join(
        [
            f"{path}: {_verdict_on(info, part)}",
            f"  input       {info.input.name}, {shape(info.input.shape)}{_taken(info)}",
            f"  output      {info.output.name}, {shape(info.output.shape)}",
            f"  opset       {info.opset}",
            f"  operators   {operators}",
            f"  layers      {', '.join(info.layers) or 'none'}",
            *([f"  substitute  {_substitutable(info)}"] if info.substitutable else []),
            f"  parameters  {info.parameters:,} ({size(4 * info.parameters)} as float32)",
        ]
    )


def _substitutable(info: ModelInfo) -> str:
    """The activations that no core computes: `2 hardswish (/a/Mul, /b/Mul)`."""
    kinds = sorted(set(info.substitutable.values()))
    named = {kind: [node for node, found in info.substitutable.items() if found == kind] for kind in kinds}
    return ", ".join(f"{len(nodes)} {kind} ({', '.join(nodes)})" for kind, nodes in named.items())


def _taken(info: ModelInfo) -> str:
    """What the exported network takes in place of a network's own input, where that is in another layout."""
    return "" if info.arrangement is None else f", which is fed as {shape(info.arrangement.shape)}"
