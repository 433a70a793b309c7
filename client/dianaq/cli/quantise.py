"""`dianaq quantise`: upload, submit, follow and download in one."""

from __future__ import annotations

import argparse
from pathlib import Path

from dianaq._bundle import check_replaceable
from dianaq.cli.options import add_job_options, job_spec
from dianaq.cli.summary import summary
from dianaq.cli.waiting import INTERRUPTED, wait
from dianaq.client import Client


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `quantise` to the command line."""
    parser = subparsers.add_parser("quantise", help="upload, quantise and download in one")
    parser.add_argument("model", type=Path, metavar="MODEL", help="float network, ONNX")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="dataset, npz")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the bundle")
    parser.add_argument("--name", help="what to call the model (default: its file's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT whatever it holds")
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Everything that can be wrong with the options is found before anything is uploaded."""
    job_spec(args, model="unknown-yet", dataset="unknown-yet")
    check_replaceable(args.out.expanduser().resolve(), overwrite=args.overwrite)
    with Client() as client:
        model = client.upload_model(args.model, name=args.name)
        dataset = client.upload_dataset(args.data)
        job = client.submit_job(job_spec(args, model=model.id, dataset=dataset.id))
        print(f"job {job.id}: {model.name} ({model.info.parameters:,} parameters) with {dataset.name}", flush=True)
        if not wait(job, args.out):
            return INTERRUPTED
        print(f"\n{summary(job.download(args.out, overwrite=args.overwrite))}")
    return 0
