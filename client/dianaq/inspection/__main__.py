"""`python -m dianaq.inspection {model|dataset} PATH [--from=TENSOR] [--to=TENSOR]`: one JSON object on standard output.

`{"info": ...}` with exit status 0, or `{"problem": ...}` with 1. The service runs this in a child process with
limits, so that a file made to hurt its reader hurts nobody.
"""

from __future__ import annotations

import argparse
import json
import sys

from pydantic import BaseModel

from dianaq.errors import DianaqError, InvalidDataset, InvalidModel
from dianaq.inspection import inspect_dataset, inspect_upload
from dianaq.schemas.spec import NetworkPart

_INVALID: dict[str, type[DianaqError]] = {"model": InvalidModel, "dataset": InvalidDataset}


def main(arguments: list[str] | None = None) -> int:
    """Inspect one file; 0 when it can be used, 1 when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m dianaq.inspection")
    parser.add_argument("kind", choices=list(_INVALID))
    parser.add_argument("path")
    parser.add_argument("--from", dest="from_", help="of a model: the tensor with which the part of it begins")
    parser.add_argument("--to", help="of a model: the tensor with which the part of it ends")
    args = parser.parse_args(arguments)
    invalid = _INVALID[args.kind]
    problem: DianaqError
    try:
        print(json.dumps({"info": _inspect(args).model_dump(mode="json")}))
        return 0
    except DianaqError as error:
        problem = error
    except MemoryError:
        problem = invalid(f"inspecting the {args.kind} takes more memory than it may have")
    except Exception as error:  # whatever a parser raises, the file is at fault and the caller wants one object
        problem = invalid(f"the {args.kind} cannot be parsed: {type(error).__name__}: {error}")
    print(json.dumps({"problem": problem.problem().model_dump(mode="json")}))
    return 1


def _inspect(args: argparse.Namespace) -> BaseModel:
    if args.kind == "dataset":
        return inspect_dataset(args.path)
    whole = args.from_ is None and args.to is None
    part = None if whole else NetworkPart.model_validate({"from": args.from_, "to": args.to})
    return inspect_upload(args.path, part=part)


if __name__ == "__main__":
    sys.exit(main())
