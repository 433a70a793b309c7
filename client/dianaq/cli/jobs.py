"""`dianaq jobs list|show|submit|cancel|download|delete`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from dianaq._display import figures
from dianaq._upload import check_whole
from dianaq.cli.options import check_model_file, read_recipe
from dianaq.cli.summary import summary
from dianaq.cli.tables import print_json, shape, table, when
from dianaq.cli.waiting import INTERRUPTED, wait
from dianaq.client import Client
from dianaq.errors import InvalidSpec
from dianaq.schemas.events import State
from dianaq.schemas.figures import telling
from dianaq.schemas.resources import Job
from dianaq.schemas.spec import JobSpec, ZooModel, parse_spec


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `jobs` to the command line."""
    jobs = subparsers.add_parser("jobs", help="list, show, submit, cancel, download and delete jobs")
    commands = jobs.add_subparsers(metavar="COMMAND", required=True)

    parser = commands.add_parser("list", help="jobs, newest first")
    parser.add_argument("--state", choices=get_args(State), help="only those in this state")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=list_jobs)

    parser = commands.add_parser("show", help="one job: state, figures, what went wrong")
    parser.add_argument("id", metavar="JOB")
    parser.add_argument("--follow", action="store_true", help="until it has ended")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=show)

    parser = commands.add_parser("submit", help="submit a job specification")
    parser.add_argument("spec", type=Path, metavar="SPEC.yaml", help="job specification, YAML or JSON")
    parser.add_argument("--model", metavar="ID|FILE", help="instead of the specification's; a file is uploaded")
    parser.add_argument("--data", metavar="ID|FILE", help="instead of the specification's; a file is uploaded")
    parser.add_argument("--follow", action="store_true", help="until it has ended")
    parser.set_defaults(run=submit)

    parser = commands.add_parser("cancel", help="cancel a job")
    parser.add_argument("id", metavar="JOB")
    parser.set_defaults(run=cancel)

    parser = commands.add_parser("download", help="fetch the bundle of a succeeded job")
    parser.add_argument("id", metavar="JOB")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the bundle")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT whatever it holds")
    parser.set_defaults(run=download)

    parser = commands.add_parser("delete", help="delete a job that has ended, with all that it left")
    parser.add_argument("id", metavar="JOB")
    parser.set_defaults(run=delete)


def list_jobs(args: argparse.Namespace) -> int:
    with Client() as client:
        jobs = [handle.job for handle in client.jobs(args.state)]
    if args.json:
        print_json(jobs)
        return 0
    rows = [(j.id, j.state, j.stage or "-", j.spec.recipe.preset or "-", when(j.created), _best(j)) for j in jobs]
    print(table(("job", "state", "stage", "preset", "created", "figure"), rows) if rows else "no jobs")
    return 0


def show(args: argparse.Namespace) -> int:
    with Client() as client:
        handle = client.job(args.id)
        if args.follow and not wait(handle):
            return INTERRUPTED
        job = handle.refresh()
    if args.json:
        print_json(job)
        return 0
    rows = [
        ("job", job.id),
        ("state", job.state if job.stage is None or job.state == "succeeded" else f"{job.state} ({job.stage})"),
        ("model", _network(job.spec.model)),
        *([("part", str(job.spec.part))] if job.spec.part is not None else []),
        ("dataset", job.spec.dataset),
        ("preset", job.spec.recipe.preset or "-"),
        ("created", when(job.created)),
        ("started", when(job.started)),
        ("finished", when(job.finished)),
        ("attempt", str(job.attempt)),
    ]
    if job.expires is not None:
        rows.append(("expires", when(job.expires)))
    if job.spec.start_from is not None:
        rows.insert(2, ("start from", job.spec.start_from))
    if job.waits_for is not None and job.state == "queued":
        rows.insert(2, ("waits for", job.waits_for))
    if job.note is not None:
        rows.append(("note", job.note))
    rows += [(stage, figures(values)) for stage, values in job.metrics.items()]
    if job.error is not None:
        rows.append(("error", f"{job.error.title}: {job.error.detail}"))
    for name, value in rows:
        print(f"{name:<16}{value}")
    return 0


def submit(args: argparse.Namespace) -> int:
    data = read_recipe(args.spec)
    model, dataset = args.model or data.get("model"), args.data or data.get("dataset")
    for name, option, value in (("model", "--model", model), ("dataset", "--data", dataset)):
        if value is None:
            raise InvalidSpec(f"{args.spec} names no {name}; add it, or give {option}", param=name)
    spec = parse_spec({**data, "model": model, "dataset": dataset})  # before anything is uploaded
    model_file = Path(spec.upload) if spec.upload is not None and Path(spec.upload).is_file() else None
    check_model_file(spec, model_file)
    with Client() as client:
        if model_file is not None:
            uploaded = client.upload_model(model_file, warn_of_refusal=False)
            check_whole(spec, uploaded)
            spec = _with_upload(spec, uploaded.id)
        if Path(spec.dataset).is_file():
            spec = spec.model_copy(update={"dataset": client.upload_dataset(spec.dataset).id})
        job = client.submit_job(spec)
        print(job.id, flush=True)
        if args.follow and not wait(job):
            return INTERRUPTED
    return 0


def cancel(args: argparse.Namespace) -> int:
    with Client() as client:
        print(f"job {args.id} is {client.job(args.id).cancel().state}")
    return 0


def download(args: argparse.Namespace) -> int:
    with Client() as client:
        print(summary(client.job(args.id).download(args.out, overwrite=args.overwrite)))
    return 0


def delete(args: argparse.Namespace) -> int:
    with Client() as client:
        client.job(args.id).delete()
    print(f"job {args.id} is deleted")
    return 0


def _best(job: Job) -> str:
    """The most telling figure of the last stage that was measured, on the most telling split."""
    for values in reversed(list(job.metrics.values())):
        if found := telling(values):
            return found
    return "-"


def _network(model: str | ZooModel) -> str:
    """An id, or `resnet8 3x32x32, width 0.5, weights mdl_1`."""
    if isinstance(model, str):
        return model
    parts = [f"{model.architecture} {shape(model.input_shape)}"]
    if model.width != 1:
        parts.append(f"width {model.width:g}")
    parts.append(f"weights {model.weights}" if model.weights else "no weights")
    return ", ".join(parts)


def _with_upload(spec: JobSpec, id: str) -> JobSpec:
    """The specification with the id of what was uploaded in place of the file."""
    model = spec.model.model_copy(update={"weights": id}) if isinstance(spec.model, ZooModel) else id
    return spec.model_copy(update={"model": model})
