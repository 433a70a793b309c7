"""`dianaq compare A B`: where two exported networks first compute something else."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dianaq.cli.tables import print_json
from dianaq.errors import DianaqError

if TYPE_CHECKING:
    from dianaq.executor.compare import Comparison, Difference

EQUAL, DIFFERENT, TROUBLE = 0, 1, 2
"""Exit statuses, those of `diff` and `cmp`."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compare` to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="run two exported networks on the same inputs; the first layer that differs",
        description="Runs both in integers. Ends with 0 if they are equal, 1 if they differ, 2 if they cannot be "
        "compared.",
    )
    for name in ("a", "b"):
        parser.add_argument(name, type=Path, metavar=name.upper(), help="a bundle's folder or zip, or an ONNX file")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help=".npy or DORY's .txt (default: a golden input, else random integers)"
    )
    parser.add_argument(
        "--quantised", action="store_true", help="the input passes the quantiser by (always so for .txt)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        found = _compare(args)
    except (DianaqError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return TROUBLE
    if args.json:
        print_json({"a": str(args.a), "b": str(args.b), "equal": found.difference is None, **asdict(found)})
    else:
        print("\n".join([*(f"note: {note}" for note in found.notes), _verdict(found)]))
    return EQUAL if found.difference is None else DIFFERENT


def _compare(args: argparse.Namespace) -> Comparison:
    from dianaq.executor import compare_models, open_source, read_input
    from dianaq.executor.files import is_text

    x = None if args.input is None else read_input(args.input)
    quantised = args.quantised or (args.input is not None and is_text(args.input))
    return compare_models(open_source(args.a), open_source(args.b), x, quantised=quantised)


def _verdict(found: Comparison) -> str:
    samples = "1 sample" if found.samples == 1 else f"{found.samples} samples"
    if found.difference is None:
        return f"equal: {found.equal_tensors} tensors, {samples}"
    return (
        f"different at {found.difference.layer}: {_what(found.difference)}\n"
        f"tensors equal before it: {found.equal_tensors}, {samples}"
    )


def _what(difference: Difference) -> str:
    """`12 of 4,096 values, by up to 3, first in sample 0 (stem/min and 7)`."""
    names = tuple(name or "none" for name in difference.tensors)
    tensors = names[0] if names[0] == names[1] else " and ".join(names)
    if difference.largest is None:
        return f"shapes {' and '.join(str(shape) for shape in difference.shapes)} ({tensors})"
    return (
        f"{difference.values:,} of {difference.of:,} values, by up to {difference.largest:g}, first in sample "
        f"{difference.sample} ({tensors})"
    )
