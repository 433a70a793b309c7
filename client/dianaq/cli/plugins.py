"""Commands of other packages, found through the entry-point group `dianaq.commands`.

An entry point is a function `register(subparsers)` that adds one parser with `set_defaults(run=...)`, where
`run(args)` returns the exit status. Importing its module must be cheap.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.metadata import entry_points

from dianaq.errors import MissingExtra

GROUP = "dianaq.commands"
EXTRA = "embedded"
"""The extra of this distribution that brings what the commands beyond the client need."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add every command that is found. One that cannot be imported says what to install."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            entry.load()(subparsers)
        except ModuleNotFoundError as error:
            parser = subparsers.add_parser(entry.name, help=f'needs: pip install "dianaq[{EXTRA}]"')
            parser.set_defaults(run=partial(_missing, entry.name, error.name), takes_anything=True)


def _missing(command: str, module: str | None, args: argparse.Namespace) -> int:
    raise MissingExtra(f'`dianaq {command}` needs {module}, which is not installed: pip install "dianaq[{EXTRA}]"')
