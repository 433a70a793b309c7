"""`python -m dianaq.inspection {model|dataset} PATH`: one JSON object on standard output.

`{"info": ...}` with exit status 0, or `{"problem": ...}` with 1. The service runs this in a child process with
limits, so that a file made to hurt its reader hurts nobody.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from pydantic import BaseModel

from dianaq.errors import DianaqError, InvalidDataset, InvalidModel
from dianaq.inspection import inspect_dataset, inspect_upload

_KINDS: dict[str, tuple[Callable[[str], BaseModel], type[DianaqError]]] = {
    "model": (inspect_upload, InvalidModel),
    "dataset": (inspect_dataset, InvalidDataset),
}


def main(arguments: list[str] | None = None) -> int:
    """Inspect one file; 0 when it can be used, 1 when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m dianaq.inspection")
    parser.add_argument("kind", choices=list(_KINDS))
    parser.add_argument("path")
    args = parser.parse_args(arguments)
    inspect, invalid = _KINDS[args.kind]
    problem: DianaqError
    try:
        print(json.dumps({"info": inspect(args.path).model_dump(mode="json")}))
        return 0
    except DianaqError as error:
        problem = error
    except MemoryError:
        problem = invalid(f"inspecting the {args.kind} takes more memory than it may have")
    except Exception as error:  # whatever a parser raises, the file is at fault and the caller wants one object
        problem = invalid(f"the {args.kind} cannot be parsed: {type(error).__name__}: {error}")
    print(json.dumps({"problem": problem.problem().model_dump(mode="json")}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
