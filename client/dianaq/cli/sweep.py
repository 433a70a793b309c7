"""`dianaq sweep submit|list|show|table|cancel`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dianaq._sweep import SweepHandle, counts
from dianaq._upload import check_whole
from dianaq.cli.options import check_model_file, read_yaml
from dianaq.cli.tables import print_json, table, when
from dianaq.cli.waiting import INTERRUPTED
from dianaq.client import Client
from dianaq.errors import InvalidSpec
from dianaq.schemas.sweep_table import SweepTable, readable
from dianaq.schemas.sweeps import parse_sweep

FORMATS = ("text", "markdown", "csv", "json")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sweep` to the command line."""
    sweep = subparsers.add_parser("sweep", help="many jobs over a grid of settings, and one table of them")
    commands = sweep.add_subparsers(metavar="COMMAND", required=True)

    parser = commands.add_parser("submit", help="submit a job for every point of a grid: all of them, or none")
    parser.add_argument("spec", type=Path, metavar="SWEEP.yaml", help="`job` and `grid`, YAML or JSON")
    parser.add_argument("--model", metavar="ID|FILE", help="instead of the job's; a file is uploaded")
    parser.add_argument("--data", metavar="ID|FILE", help="instead of the job's; a file is uploaded")
    parser.add_argument("--follow", action="store_true", help="until all jobs have ended; then their table")
    parser.set_defaults(run=submit)

    parser = commands.add_parser("list", help="sweeps, newest first")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=list_sweeps)

    parser = commands.add_parser("show", help="one sweep: its jobs, their points and states")
    parser.add_argument("id", metavar="SWEEP")
    parser.add_argument("--follow", action="store_true", help="until all jobs have ended; then their table")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=show)

    parser = commands.add_parser("table", help="what the jobs of a sweep have reached by now")
    parser.add_argument("id", metavar="SWEEP")
    parser.add_argument("--format", choices=FORMATS, default="text", help="csv and json have every figure")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="write it there")
    parser.set_defaults(run=show_table)

    parser = commands.add_parser("cancel", help="cancel the jobs of a sweep that have not ended")
    parser.add_argument("id", metavar="SWEEP")
    parser.set_defaults(run=cancel)


def submit(args: argparse.Namespace) -> int:
    data = read_yaml(args.spec)
    if not isinstance(data.get("job"), dict):
        raise InvalidSpec(f"{args.spec} has no job; a sweep takes the keys job and grid", param="job")
    job = _named(data["job"], args)
    spec = parse_sweep({**data, "job": job})
    model_file = _file(_upload_of(job))
    jobs = [found for _, found in spec.jobs()]
    for found in jobs:  # before anything is uploaded
        check_model_file(found, model_file)
    with Client() as client:
        if model_file is not None:
            model = client.upload_model(model_file, warn_of_refusal=False)
            for found in jobs:
                check_whole(found, model)
            job = _with_upload(job, model.id)
        if (data_file := _file(job.get("dataset"))) is not None:
            job = {**job, "dataset": client.upload_dataset(data_file).id}
        sweep = client.submit_sweep(job, spec.grid)
        print(f"{sweep.id}: {counts(sweep.sweep.states)}", flush=True)
        return _follow(sweep) if args.follow else 0


def list_sweeps(args: argparse.Namespace) -> int:
    with Client() as client:
        sweeps = list(client.sweeps())
    if args.json:
        print_json(sweeps)
        return 0
    rows = [(s.id, when(s.created), ", ".join(s.spec.grid), counts(s.states)) for s in sweeps]
    print(table(("sweep", "created", "grid", "state"), rows) if rows else "no sweeps")
    return 0


def show(args: argparse.Namespace) -> int:
    with Client() as client:
        handle = client.sweep(args.id)
        if args.follow:
            return _follow(handle)
    sweep = handle.sweep
    if args.json:
        print_json(sweep)
        return 0
    print(f"{sweep.id}: {counts(sweep.states)}\n")
    rows = [(j.id, j.state, ", ".join(f"{path}={value}" for path, value in j.point.items())) for j in sweep.jobs]
    print(table(("job", "state", "point"), rows))
    return 0


def show_table(args: argparse.Namespace) -> int:
    with Client() as client:
        text = _text(client.sweep(args.id).table(), args.format)
    if args.out is None:
        print(text)
    else:
        args.out.write_text(f"{text}\n", encoding="utf-8")
    return 0


def cancel(args: argparse.Namespace) -> int:
    with Client() as client:
        print(f"sweep {args.id}: {counts(client.sweep(args.id).cancel().states)}")
    return 0


def _follow(sweep: SweepHandle) -> int:
    """Wait, then print the table; 1 if any job did not succeed. Ctrl-C stops following, not the jobs."""
    try:
        sweep.wait(raise_on_failure=False)
    except KeyboardInterrupt:
        print(
            f"\nsweep {sweep.id} goes on\n"
            f"  follow it:   dianaq sweep show {sweep.id} --follow\n"
            f"  compare it:  dianaq sweep table {sweep.id}\n"
            f"  cancel it:   dianaq sweep cancel {sweep.id}",
            file=sys.stderr,
        )
        return INTERRUPTED
    found = sweep.table()
    print(f"\n{_text(found, 'text')}")
    failed = [row for row in found.rows if row.state != "succeeded"]
    for row in failed:
        why = f": {row.error.title}: {row.error.detail}" if row.error else ""
        print(f"error: job {row.job} {row.state}{why}", file=sys.stderr)
    return 1 if failed else 0


def _text(found: SweepTable, form: str) -> str:
    if form == "markdown":
        return found.markdown()
    if form == "csv":
        return found.csv().rstrip()
    if form == "json":
        return found.model_dump_json(indent=2)
    return table(*readable(found))


def _named(job: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The job with the model and the dataset of the options in place of its own."""
    named = dict(job)
    if args.model is not None:
        named = _with_upload(named, args.model)
    if args.data is not None:
        named["dataset"] = args.data
    return named


def _upload_of(job: Mapping[str, Any]) -> Any:
    """What the job names as its file: a network, or the weights of one of the zoo."""
    model = job.get("model")
    return model.get("weights") if isinstance(model, Mapping) else model


def _with_upload(job: Mapping[str, Any], name: str) -> dict[str, Any]:
    model = job.get("model")
    return {**job, "model": {**model, "weights": name} if isinstance(model, Mapping) else name}


def _file(name: Any) -> Path | None:
    """The file of that name, if there is one; else it is an id."""
    return Path(name) if isinstance(name, str) and Path(name).is_file() else None
