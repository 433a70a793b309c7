"""`python -m dianaq_quant MODEL --data FILE --preset ptq -o OUT`: a job without any service."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from dianaq.cli.options import add_job_options, add_model_argument, check_model_file, job_spec
from dianaq.errors import DianaqError, InvalidSpec
from dianaq.schemas.events import EventBody, LogBody, MetricsBody, StageBody
from dianaq.schemas.spec import JobSpec, checkpoint_of


def main(argv: list[str] | None = None) -> int:
    """Run one job in this process; 0 on success, 1 with one line on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="python -m dianaq_quant", description=__doc__)
    add_model_argument(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="dataset, npz")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the bundle")
    parser.add_argument(
        "--resumable",
        type=Path,
        metavar="FOLDER",
        help="write training down there after each epoch, and go on from it when the command is given again",
    )
    add_job_options(parser)
    args = parser.parse_args(argv)
    # torch takes seconds to import, and onnx a part of one; usage errors should not
    from dianaq.inspection.external import self_contained
    from dianaq_quant.pipeline import run

    try:
        spec = job_spec(args, model=None if args.model is None else args.model.name, dataset=args.data.name)
        # Without MODEL, a zoo network may have its weights from the file of --recipe.
        model = args.model or (None if spec.upload is None else Path(spec.upload))
        start = _checkpoint(spec)
        for path in (model, args.data):
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"no such file: {path}")
        check_model_file(spec, model)
        with ExitStack() as opened:
            run(
                spec,
                model_path=None if model is None else opened.enter_context(self_contained(model)),
                dataset_path=args.data,
                out_dir=args.out,
                emit=_tell,
                start_from=start,
                snapshots=args.resumable,
            )
    except (DianaqError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {_AFTER_INTERRUPT[args.resumable is not None]}", file=sys.stderr)
        return 130
    print(f"bundle: {args.out}")
    return 0


_AFTER_INTERRUPT = {
    False: "nothing was written",
    True: "the same command goes on after the last whole epoch",
}


def _checkpoint(spec: JobSpec) -> Path | None:
    """The checkpoint that `start_from` names, in the folder of a bundle.

    Raises:
        InvalidSpec: the folder has none.
    """
    if spec.start is None:
        return None
    folder, iteration = spec.start
    path = Path(folder) / checkpoint_of(iteration)
    if not path.is_file():
        what = "it has no such checkpoint" if Path(folder).is_dir() else "there is no such bundle folder"
        raise InvalidSpec(f"start_from is {spec.start_from!r}, but {what} ({path})", param="start_from")
    return path


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
