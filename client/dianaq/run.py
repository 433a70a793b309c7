"""`python -m dianaq.run MODEL.onnx INPUT.npy`: an exported network in numpy, in integers, without onnxruntime.

Takes `htvm/model.onnx` with `htvm/input.npy`, and `dory/model.onnx` with `dory/input.txt`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dianaq.errors import DianaqError

if TYPE_CHECKING:
    from dianaq.executor import Execution

SHOWN = 16
"""Values of a sample's output that are printed; a classifier of CIFAR-10 has 10."""


def main(argv: list[str] | None = None) -> int:
    """Run one network on one file of inputs; 0 on success, 1 with one line on standard error otherwise."""
    parser = argparse.ArgumentParser(prog="python -m dianaq.run", description="Run an exported network in integers.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="htvm/model.onnx or dory/model.onnx")
    parser.add_argument("input", type=Path, metavar="INPUT", help=".npy (N, ...) or one sample; or DORY's .txt")
    parser.add_argument("-o", "--out", type=Path, metavar="OUTPUT.npy", help="write the output, as the file gives it")
    parser.add_argument("--all", type=Path, metavar="DIR", help="write every tensor of integers into this folder")
    parser.add_argument(
        "--quantised", action="store_true", help="the input passes the quantiser by (always so for .txt)"
    )
    args = parser.parse_args(argv)
    try:
        _run(args)
    except (DianaqError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    from dianaq.executor import load_model, read_input
    from dianaq.executor.files import file_name, is_text, write_array

    model = load_model(args.model)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    quantised = args.quantised or is_text(args.input)
    execution = model.run(read_input(args.input), quantised=quantised, keep=None if args.all else ())
    _show(execution)
    if args.out is not None:
        write_array(args.out, execution.output)
    if args.all is not None:
        args.all.mkdir(parents=True, exist_ok=True)
        for index, (name, value) in enumerate(execution.tensors.items()):
            write_array(args.all / file_name(index, name), value)
        print(f"{len(execution.tensors)} tensors in {args.all}")


def _show(execution: Execution) -> None:
    """The output's shape, integers, scale, and the largest value of every sample."""
    logits = execution.logits
    print(f"output {list(logits.shape)}, integers in [{logits.min()}, {logits.max()}], scale {execution.scale:g}")
    for sample, values in enumerate(logits.reshape(len(logits), -1)):
        more = " ..." if len(values) > SHOWN else ""
        print(f"sample {sample}: argmax {values.argmax()}  {' '.join(map(str, values[:SHOWN]))}{more}")


if __name__ == "__main__":
    sys.exit(main())
