"""`dianaq models list|delete`, `dianaq datasets list|delete`, `dianaq schema`, `dianaq version`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from dianaq import __version__
from dianaq.cli.tables import print_json, shape, size, table, when
from dianaq.client import Client
from dianaq.schemas.report import report_schema
from dianaq.schemas.resources import ModelInfo
from dianaq.schemas.spec import JobSpec
from dianaq.schemas.sweeps import SweepSpec

SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "job": JobSpec.model_json_schema,
    "sweep": SweepSpec.model_json_schema,
    "report": report_schema,
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to the command line."""
    for name, run in (("models", list_models), ("datasets", list_datasets)):
        commands = subparsers.add_parser(name, help=f"list and delete uploaded {name}").add_subparsers(
            metavar="COMMAND", required=True
        )
        parser = commands.add_parser("list", help=f"{name}, newest first")
        parser.add_argument("--json", action="store_true", help="as JSON")
        parser.set_defaults(run=run)
        parser = commands.add_parser("delete", help="delete one that no unfinished job needs")
        parser.add_argument("id", metavar="ID")
        parser.set_defaults(run=delete, kind=name)
    parser = subparsers.add_parser("schema", help="JSON Schema of the job specification, of a sweep, or of report.json")
    parser.add_argument("what", nargs="?", choices=tuple(SCHEMAS), default="job", help="default: job")
    parser.set_defaults(run=schema)
    subparsers.add_parser("version", help="version of this program").set_defaults(run=version)


def list_models(args: argparse.Namespace) -> int:
    with Client() as client:
        models = list(client.models())
    if args.json:
        print_json(models)
        return 0
    rows = []
    for m in models:
        if isinstance(m.info, ModelInfo):
            holds = f"{shape(m.info.input.shape)} -> {shape(m.info.output.shape)}"
        else:
            holds = f"{m.info.tensors:,} tensors"
        rows.append((m.id, m.name, m.info.format, holds, size(m.size), when(m.created)))
    print(table(("model", "name", "format", "holds", "size", "uploaded"), rows) if rows else "no models")
    return 0


def list_datasets(args: argparse.Namespace) -> int:
    with Client() as client:
        datasets = list(client.datasets())
    if args.json:
        print_json(datasets)
        return 0
    rows = []
    for d in datasets:
        train = d.info.splits["train"]
        samples = " + ".join(f"{split.samples:,} {name}" for name, split in d.info.splits.items())
        rows.append(
            (d.id, d.name, f"{shape(train.sample_shape)} {train.dtype}", samples, size(d.size), when(d.created))
        )
    print(table(("dataset", "name", "sample", "samples", "size", "uploaded"), rows) if rows else "no datasets")
    return 0


def delete(args: argparse.Namespace) -> int:
    with Client() as client:
        (client.delete_model if args.kind == "models" else client.delete_dataset)(args.id)
    print(f"{args.id} is deleted")
    return 0


def schema(args: argparse.Namespace) -> int:
    print_json(SCHEMAS[args.what]())
    return 0


def version(args: argparse.Namespace) -> int:
    print(f"dianaq {__version__}")
    return 0
