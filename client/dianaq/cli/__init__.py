"""The command line: one file per group of commands; `options` turns options into a job specification.

From outside: `main`, and `dianaq.cli.options`. Other packages add commands through the entry-point group
`dianaq.commands`.
"""

from __future__ import annotations

import argparse
import os
import sys

from dianaq.errors import DianaqError

__all__ = ["main"]

_BUILT_IN = frozenset({"quantise", "jobs", "models", "datasets", "schema", "version", "compare", "sweep"})


def main(argv: list[str] | None = None) -> int:
    """Run one command: 0 when it did what was asked, 1 with one line on standard error, 2 for wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parse(arguments)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of a listing has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at its end
        return 0
    except (DianaqError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(arguments: list[str]) -> argparse.Namespace:
    from dianaq.cli import compare, jobs, listings, plugins, quantise, sweep  # `dianaq.cli.options` needs none of them

    parser = argparse.ArgumentParser(prog="dianaq", description="Quantise networks for the DIANA chip.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in (quantise, jobs, sweep, listings, compare):
        group.register(commands)
    # Other packages' commands are imported only when one of them is meant, or all are listed.
    if not (arguments and arguments[0] in _BUILT_IN):
        plugins.register(commands)
    args, rest = parser.parse_known_args(arguments)
    if rest and not getattr(args, "takes_anything", False):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    return args
