"""`dianaq quantise`: upload, submit, follow and download in one."""

from __future__ import annotations

import argparse
from pathlib import Path

from dianaq._bundle import check_replaceable
from dianaq._upload import check_whole
from dianaq.cli.options import (
    add_job_options,
    add_model_argument,
    add_scheduling_options,
    check_model_file,
    job_spec,
)
from dianaq.cli.summary import summary
from dianaq.cli.waiting import INTERRUPTED, wait
from dianaq.client import Client
from dianaq.inspection import check_substitution
from dianaq.schemas.resources import Model, ModelInfo
from dianaq.schemas.spec import JobSpec, ZooModel


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `quantise` to the command line."""
    parser = subparsers.add_parser("quantise", help="upload, quantise and download in one")
    add_model_argument(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="dataset, npz")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the bundle")
    parser.add_argument("--name", help="what to call the model (default: its file's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT whatever it holds")
    add_job_options(parser)
    add_scheduling_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Everything that can be wrong with the options is found before anything is uploaded.

    What must be substituted is known once the network is, and said before the dataset is sent, which is the larger.
    """
    draft = job_spec(args, model=None if args.model is None else "unknown-yet", dataset="unknown-yet")
    check_model_file(draft, args.model)
    check_replaceable(args.out.expanduser().resolve(), overwrite=args.overwrite)
    with Client() as client:
        model = None
        if args.model is not None:
            model = client.upload_model(args.model, name=args.name, warn_of_refusal=False)
            check_whole(draft, model)
        whole = draft.start is None and draft.part is None  # activations of a part are known once it is submitted
        if model is not None and isinstance(model.info, ModelInfo) and whole:
            check_substitution(draft, model.info.substitutable, model.info.final)
        dataset = client.upload_dataset(args.data)
        spec = job_spec(args, model=None if model is None else model.id, dataset=dataset.id)
        job = client.submit_job(spec)
        print(f"job {job.id}: {_network(spec, model)} with {dataset.name}", flush=True)
        if not wait(job, args.out):
            return INTERRUPTED
        print(f"\n{summary(job.download(args.out, overwrite=args.overwrite))}")
    return 0


def _network(spec: JobSpec, model: Model | None) -> str:
    """`resnet8.onnx (77,000 parameters)`, `resnet8 (weights best.pt)`, and where the job starts from another one."""
    if isinstance(spec.model, ZooModel):
        weights = spec.model.weights if model is None else model.name
        text = f"{spec.model.architecture} ({f'weights {weights}' if weights else 'no weights'})"
    else:
        assert model is not None
        assert isinstance(model.info, ModelInfo)
        text = f"{model.name} ({model.info.parameters:,} parameters)"
        if spec.part is not None:
            text += f", {spec.part}"
    return text if spec.start_from is None else f"{text} from {spec.start_from}"
