"""`python -m dianaq_quant MODEL --data FILE --preset ptq -o OUT`: a job without any service."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dianaq.cli.options import add_job_options, job_spec
from dianaq.errors import DianaqError
from dianaq.events import EventBody, LogBody, MetricsBody, StageBody


def main(argv: list[str] | None = None) -> int:
    """Run one job in this process; 0 on success, 1 with one line on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="python -m dianaq_quant", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="float network, ONNX")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="dataset, npz")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the bundle")
    add_job_options(parser)
    args = parser.parse_args(argv)
    from dianaq_quant.pipeline import run  # torch takes seconds to import; usage errors should not

    try:
        for path in (args.model, args.data):
            if not path.is_file():
                raise FileNotFoundError(f"no such file: {path}")
        spec = job_spec(args, model=args.model.name, dataset=args.data.name)
        run(spec, model_path=args.model, dataset_path=args.data, out_dir=args.out, emit=_tell)
    except (DianaqError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print(f"bundle: {args.out}")
    return 0


def _tell(body: EventBody) -> None:
    """One line per thing a person wants to know."""
    if isinstance(body, StageBody) and body.status == "finished":
        print(f"{body.stage:16} {body.seconds:8.1f} s")
    elif isinstance(body, MetricsBody):
        figures = "  ".join(f"{name} {value:.4f}" for name, value in body.values.items())
        epoch = f"epoch {body.epoch}  " if body.epoch else ""
        print(f"{body.stage:16} {epoch}{figures}")
    elif isinstance(body, LogBody):
        print(f"{body.level}: {body.message}")


if __name__ == "__main__":
    sys.exit(main())
